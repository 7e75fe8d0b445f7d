//! Minutes of traffic against a fake clock: rates reach their targets, errors
//! never starve.

use crate::make::{NOW, SECOND, with_priority};
use serde_json::json;
use spanloom_model::Batch;
use spanloom_sampler::{Samplers, Settings, by, signature};
use std::collections::HashMap;

/// Deterministic ids that spread over all 64 bits.
struct Ids(u64);

impl Ids {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn trace(service: &str, id: u64, priority: i32, error: Option<&str>) -> Batch {
    let meta = error.map_or(json!({}), |e| json!({"error.type": e}));
    let error = i32::from(error.is_some());
    let span = json!({"service": service, "name": "op", "trace_id": id, "error": error, "meta": meta});
    with_priority(&[span], priority)
}

/// A tracer that obeys the rates it was told.
fn tracer_keeps(s: &Samplers, service: &str, id: u64) -> bool {
    let rates = s.rates();
    let key = signature::service_key(service, "none");
    let rate = rates.get(&key).or_else(|| rates.get("service:,env:")).copied().unwrap_or(1.0);
    signature::sample_by_rate(spanloom_model::TraceId(u128::from(id)), rate)
}

/// Runs `seconds` of traffic, `per_second` traces of service i each second;
/// answers what was kept per service in the second half.
fn run(s: &mut Samplers, services: &[u32], seconds: i64) -> Vec<u32> {
    let mut ids = Ids(1);
    let names: Vec<String> = (0..services.len()).map(|i| format!("service-{i}")).collect();
    let mut kept = vec![0; services.len()];
    for second in 0..seconds {
        for (i, per_second) in services.iter().enumerate() {
            for n in 0..*per_second {
                let now = NOW + second * SECOND + i64::from(n) * SECOND / i64::from(*per_second);
                let id = ids.next();
                let priority = i32::from(tracer_keeps(s, &names[i], id));
                let d = s.decide(&mut trace(&names[i], id, priority, None), 0, now);
                kept[i] += u32::from(d.keep && second >= seconds / 2);
            }
        }
    }
    kept
}

#[test]
fn one_busy_service_is_brought_to_the_target() {
    let mut s = Samplers::new(&Settings::default());
    let kept = run(&mut s, &[500], 120);
    let rate = f64::from(kept[0]) / 60.0;
    assert!((8.5..11.5).contains(&rate), "{rate} per second");
}

#[test]
fn what_quiet_services_leave_over_goes_to_the_busy_ones() {
    let mut s = Samplers::new(&Settings { target_tps: 30.0, ..Settings::default() });
    let kept = run(&mut s, &[400, 300, 2, 1], 120);
    let per_second: Vec<f64> = kept.iter().map(|k| f64::from(*k) / 60.0).collect();
    assert_eq!(kept[2..], [120, 60], "below their share nothing is dropped");
    assert!(per_second[..2].iter().all(|r| (11.5..15.5).contains(r)), "{per_second:?}");
}

#[test]
fn a_thousand_services_share_the_target_and_none_is_forgotten() {
    let mut s = Samplers::new(&Settings { target_tps: 200.0, ..Settings::default() });
    let kept = run(&mut s, &vec![1; 1000], 160);
    let rate = f64::from(kept.iter().sum::<u32>()) / 80.0;
    assert!((170.0..230.0).contains(&rate), "{rate} per second");
    assert!(kept.iter().all(|k| *k > 0), "a service was never kept");
    assert_eq!(s.rates().len(), 2001, "each service with and without the agent's env, and the default");
}

#[test]
fn after_a_burst_rates_rise_slowly_and_reach_one_again() {
    let mut s = Samplers::new(&Settings::default());
    run(&mut s, &[1000], 20);
    let key = signature::service_key("service-0", "none");
    let mut rates = vec![s.rates()[&key]];
    assert!(rates[0] < 0.02, "{rates:?}");
    let mut ids = Ids(7);
    for step in 0..60 {
        let now = NOW + (20 + step * 5) * SECOND;
        s.decide(&mut trace("service-0", ids.next(), 1, None), 0, now);
        rates.push(s.rates()[&key]);
    }
    assert!(rates.windows(2).all(|w| w[1] <= w[0] * 1.2000001), "{rates:?}");
    assert_eq!(rates.last(), Some(&1.0));
}

#[test]
fn rare_errors_are_not_starved_by_frequent_ones() {
    let mut s = Samplers::new(&Settings::default());
    let mut ids = Ids(3);
    let mut kept: HashMap<String, u32> = HashMap::new();
    let mut sent = 0;
    for second in 0..300i64 {
        for n in 0..400i64 {
            let now = NOW + second * SECOND + n * SECOND / 400;
            // One kind of error all the time, and each second one of 20 seldom ones.
            let kind = if n == 0 { format!("Seldom{}", second % 20) } else { "Frequent".to_owned() };
            let d = s.decide(&mut trace("web", ids.next(), 0, Some(&kind)), 0, now);
            assert_eq!(d.by, by::ERRORS);
            if second >= 60 {
                sent += u32::from(n == 0);
                *kept.entry(kind).or_default() += u32::from(d.keep);
            }
        }
    }
    let frequent = f64::from(kept["Frequent"]) / 240.0;
    let seldom: u32 = (0..20).map(|i| kept[&format!("Seldom{i}")]).sum();
    assert!((5.0..11.0).contains(&frequent), "{frequent} per second");
    assert_eq!((seldom, sent), (240, 240), "every seldom error is kept");
}

#[test]
fn errors_of_a_thousand_services_stay_within_the_target_and_all_show_up() {
    let mut s = Samplers::new(&Settings { errors_tps: 50.0, ..Settings::default() });
    let mut ids = Ids(5);
    let mut kept = vec![0u32; 1000];
    for second in 0..200i64 {
        for (i, kept) in kept.iter_mut().enumerate() {
            let now = NOW + second * SECOND + i as i64 * SECOND / 1000;
            let d = s.decide(&mut trace(&format!("s{i}"), ids.next(), 0, Some("E")), 0, now);
            *kept += u32::from(d.keep && second >= 40);
        }
    }
    let rate = f64::from(kept.iter().sum::<u32>()) / 160.0;
    // Shared places age out and come back, so it stays somewhat below.
    assert!((30.0..62.0).contains(&rate), "{rate} per second");
    assert!(
        kept.iter().filter(|k| **k == 0).count() < 10,
        "{:?} services never kept",
        kept.iter().filter(|k| **k == 0).count()
    );
}

#[test]
fn traces_without_priority_are_held_to_the_target() {
    let mut s = Samplers::new(&Settings::default());
    let mut ids = Ids(9);
    let mut kept = 0;
    for second in 0..120i64 {
        for n in 0..300i64 {
            let now = NOW + second * SECOND + n * SECOND / 300;
            let d = s.decide(&mut trace("web", ids.next(), spanloom_model::PRIORITY_NONE, None), 0, now);
            kept += u32::from(d.keep && second >= 60);
        }
    }
    let rate = f64::from(kept) / 60.0;
    assert!((8.5..11.5).contains(&rate), "{rate} per second");
}

#[test]
fn an_infinite_target_keeps_all_and_tells_tracers_so() {
    let mut s = Samplers::new(&Settings { target_tps: f64::INFINITY, ..Settings::default() });
    let kept = run(&mut s, &[300, 1], 20);
    assert_eq!(kept, [3000, 10]);
    assert!(s.rates().values().all(|r| *r == 1.0));
}
