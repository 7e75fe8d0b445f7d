//! The recordings of the reference agent (`fixtures/golden-agent`), each
//! replayed against the real program over real HTTP, with a stand-in intake
//! that decodes what it gets. Answers and payloads must mean the same.
//!
//! `SPANLOOM_GOLDEN=part-of-a-name` plays only some of them.
//!
//! | file | holds |
//! |---|---|
//! | `player.rs` | processes, requests, answers |
//! | `intake.rs` | the stand-in |
//! | `decode.rs` | protobuf, msgpack and sketches as the recordings write them |
//! | `compare.rs` | equal by meaning |
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // a test may

mod compare;
mod decode;
mod intake;
mod player;

use compare::Difference;
use player::Recording;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Processes that run at the same time; they wait most of the time.
const AT_ONCE: usize = 6;

/// A difference that is meant: in this recording, where the reference sends
/// `theirs` (in spans and in statistics), the program sends `ours`.
struct Meant {
    recording: &'static str,
    theirs: &'static str,
    ours: &'static str,
    why: &'static str,
}

const STATEMENT: &str = "statements under type `db` are scrubbed; the reference sends them as they are";

/// All of them. Any other difference fails the test, and so does one of these
/// that is no longer there. `docs/obfuscation.md` explains them.
const MEANT: &[Meant] = &[
    Meant { recording: "obfuscate-sql", theirs: "SELECT 5 FROM t", ours: "SELECT ? FROM t", why: STATEMENT },
    Meant {
        recording: "random-s01",
        theirs: "UPDATE Übersicht t\nSET _hidden = TRUE where CURRENT OF cur",
        ours: "UPDATE Übersicht t SET _hidden = ? where CURRENT OF cur",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s02",
        theirs: "SELECT all false AS 名 FOR UPDATE",
        ours: "SELECT all ? FOR UPDATE",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s03",
        theirs: "SELECT @p1 = 93842, @@VERSION",
        ours: "SELECT @p1 = ? @@VERSION",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s09",
        theirs: "insert into `metrics` DEFAULT VALUES",
        ours: "insert into metrics DEFAULT VALUES",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s09",
        theirs: "CREATE INDEX IF NOT EXISTS idx_10 ON EVENT_LOG USING btree (_hidden, lower(a.status)) WHERE TOTAL between .73191 AND 0x13175",
        ours: "CREATE INDEX IF NOT EXISTS idx_10 ON EVENT_LOG USING btree ( _hidden, lower ( a.status ) ) WHERE TOTAL between ? AND ?",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s19",
        theirs: r#"SELECT "User"."id" AS "User_id", "User"."name" AS "User_name" FROM "user" "User" WHERE "User"."id" IN /*!40001 SQL_NO_CACHE */ (98508,97404) -- PARAMETERS: [1]"#,
        ours: "SELECT User . id, User . name FROM user User WHERE User . id IN ( ? )",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s20",
        theirs: r#"DELETE t FROM "public"."order_items" WHERE "id" <> ALL (&var)"#,
        ours: "DELETE t FROM public . order_items WHERE id <> ALL ( & var )",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s23",
        theirs: "Select DISTINCT 1 from --\n main.Tmp_7 QUALIFY ROW_NUMBER() OVER (PARTITION BY col_10$x ORDER BY \"kind\") = -82776 FETCH FIRST 5 ROWS ONLY",
        ours: "Select DISTINCT ? from main.Tmp_7 QUALIFY ROW_NUMBER ( ) OVER ( PARTITION BY col_10$x ORDER BY kind ) = ? FETCH FIRST ? ROWS ONLY",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s25",
        theirs: "/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',dddbs='db'*/\nUPDATE jobs AS t\nSET is_active=u.a1b2 | True, count += qty, Größe += ?1, Count=' '\nWHERE CURRENT OF cur",
        ours: "UPDATE jobs SET is_active = u.a1b2 | ? count + = qty, Größe + = ? Count = ? WHERE CURRENT OF cur",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s25",
        theirs: "INSERT IGNORE INTO roles (date,\"col_10 \"\"col_10\",\"count \"\"count\",\"first_name \"\"first_name\",Col_10) VALUES (CONCAT(col1, old.kind),LISTAGG(84385, Level) WITHIN GROUP (ORDER BY 87845.14),X'4D79535280','zqk2762v\\') ;",
        ours: r#"INSERT IGNORE INTO roles ( date, col_10 "col_10, count "count, first_name "first_name, Col_10 ) VALUES ( CONCAT ( col1, old.kind ), LISTAGG ( ? Level ) WITHIN GROUP ( ORDER BY ? ) X ? )"#,
        why: STATEMENT,
    },
    Meant {
        recording: "random-s27",
        theirs: "select 75628,\n  email[1] As 名,\n  payload ?| array['a','b'] as a1 FROM db1.public.daily_stats_20240131 t\nWHERE date NOT LIKE X'4D79539442'",
        ours: "select ? email [ ? ], payload ? | array [ ? ] FROM db1.public.daily_stats_20240131 t WHERE date NOT LIKE X ?",
        why: STATEMENT,
    },
    Meant {
        recording: "random-s53",
        theirs: "SELECT `user_id` FROM dual WHERE 78651 = PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY t.`count`) GROUP BY ROLLUP(order) HAVING `o`.`id` < `updatedAt` LIMIT ALL",
        ours: "SELECT user_id FROM dual WHERE ? = PERCENTILE_CONT ( ? ) WITHIN GROUP ( ORDER BY t. count ) GROUP BY ROLLUP ( order ) HAVING o . id < updatedAt LIMIT ALL",
        why: STATEMENT,
    },
];

/// What we want of a recording: the recorded intake with our texts in the
/// places that differ on purpose. Tells which differences were met.
fn wanted(name: &str, mut want: Vec<Json>, got: &[Json], met: &mut BTreeSet<usize>) -> Vec<Json> {
    for (i, meant) in MEANT.iter().enumerate().filter(|(_, m)| m.recording == name) {
        let ours = Json::from(meant.ours);
        let mut found = false;
        want.iter_mut().for_each(|w| replace(w, meant.theirs, &ours, &mut found));
        if found && got.iter().any(|g| contains(g, &ours)) {
            met.insert(i);
        }
    }
    want
}

fn replace(value: &mut Json, theirs: &str, ours: &Json, found: &mut bool) {
    match value {
        Json::String(text) if text == theirs => {
            *found = true;
            *value = ours.clone();
        }
        Json::Array(list) => list.iter_mut().for_each(|v| replace(v, theirs, ours, found)),
        Json::Object(map) => map.values_mut().for_each(|v| replace(v, theirs, ours, found)),
        _ => {}
    }
}

fn contains(value: &Json, text: &Json) -> bool {
    match value {
        Json::Array(list) => list.iter().any(|v| contains(v, text)),
        Json::Object(map) => map.values().any(|v| contains(v, text)),
        value => value == text,
    }
}

fn differences(recording: &Recording, intake: &intake::Intake, met: &mut BTreeSet<usize>) -> Vec<Difference> {
    let responses = recording.json["responses"].as_array().unwrap();
    let requests = recording.requests();
    let mut out = Vec::new();
    let mut check = |first: usize, n: usize, process: Option<usize>| {
        let played = player::play(recording, &requests[first..first + n], intake);
        for (i, reply) in played.replies.iter().enumerate() {
            out.extend(compare::reply(first + i, &responses[first + i], reply.as_ref(), &played));
        }
        let ends =
            |i: usize| responses[i]["closed_without_answer"] == true || responses[i]["process_ended"] == true;
        // What the reference sent before it died is no target.
        if !(first..first + n).any(ends) {
            let want = player::recorded_intake(recording, process);
            let want = wanted(&recording.name(), want, &played.intake, met);
            let found = compare::intake(&want, &played.intake, played.times);
            out.extend(found.into_iter().map(|d| Difference {
                path: process.map_or(d.path.clone(), |p| format!("{p}/{}", d.path)),
                ..d
            }));
        }
    };
    if recording.json["process_per_request"] == true {
        for i in 0..requests.len() {
            check(i, 1, Some(i));
        }
    } else {
        check(0, requests.len(), None);
    }
    out
}

/// Buckets of statistics and updates of rates follow the clock: a run that
/// crosses a border is repeated.
fn settled(recording: &Recording, intake: &intake::Intake, met: &mut BTreeSet<usize>) -> Vec<Difference> {
    let mut found = Vec::new();
    for _ in 0..3 {
        found = differences(recording, intake, met);
        let by_clock = ["/Start", "/clients/", "/rates"];
        if !found.iter().any(|d| by_clock.iter().any(|part| d.path.contains(part))) {
            break;
        }
    }
    found
}

#[test]
fn the_program_answers_and_sends_what_the_reference_did() {
    let only = std::env::var("SPANLOOM_GOLDEN").unwrap_or_default();
    let recordings: Vec<Recording> =
        Recording::all().into_iter().filter(|r| r.name().contains(&only)).collect();
    let next = AtomicUsize::new(0);
    let found: Mutex<BTreeMap<usize, Vec<Difference>>> = Mutex::default();
    let met: Mutex<BTreeSet<usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let intake = intake::Intake::start();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(recording) = recordings.get(i) else { return };
                    let mut as_meant = BTreeSet::new();
                    let differences = settled(recording, &intake, &mut as_meant);
                    met.lock().unwrap().extend(as_meant);
                    if !differences.is_empty() {
                        found.lock().unwrap().insert(i, differences);
                    }
                }
            });
        }
    });
    let mut failed = Vec::new();
    for (i, differences) in found.into_inner().unwrap() {
        let lines: Vec<String> = differences.iter().take(8).map(|d| format!("    {d}")).collect();
        let (name, n) = (recordings[i].name(), differences.len());
        failed.push(format!("{name}: {n} differences\n{}", lines.join("\n")));
    }
    let met = met.into_inner().unwrap();
    for (i, meant) in MEANT.iter().enumerate().filter(|(_, m)| m.recording.contains(&only)) {
        if !met.contains(&i) {
            failed.push(format!("{}: no longer differs: {} ({})", meant.recording, meant.theirs, meant.why));
        }
    }
    assert!(!only.is_empty() || recordings.len() >= 197, "{} recordings", recordings.len());
    assert!(
        failed.is_empty(),
        "{} of {} recordings differ:\n{}",
        failed.len(),
        recordings.len(),
        failed.join("\n")
    );
}
