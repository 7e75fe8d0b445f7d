use spanloom_model::stats::{
    ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload, Trilean,
};
use spanloom_stats::{encode, split};

fn source(name: &str, groups: usize) -> ClientStatsPayload {
    let stats = (0..groups).map(|i| ClientGroupedStats { hits: i as u64, ..Default::default() }).collect();
    ClientStatsPayload {
        service: name.into(),
        image_tag: "it".into(),
        stats: vec![ClientStatsBucket { start: 10, duration: 5, stats, agent_time_shift: 0 }],
        ..Default::default()
    }
}

#[test]
fn sources_are_cut_dealt_and_packed_and_nothing_is_lost() {
    let stats = vec![source("a", 3), source("b", 25), source("c", 0), source("d", 1)];
    let parts = split(StatsPayload { stats, agent_env: "e".into(), ..Default::default() }, 10);
    let sizes: Vec<Vec<usize>> =
        parts.iter().map(|p| p.stats.iter().map(ClientStatsPayload::group_count).collect()).collect();
    assert_eq!(sizes, [vec![3], vec![9], vec![8], vec![8, 0, 1]]);
    assert!(parts.iter().all(|p| p.split_payload && p.agent_env == "e"));
    assert!(parts.iter().flat_map(|p| &p.stats).all(|s| s.image_tag == "it" && s.stats[0].start == 10));
    let mut hits: Vec<u64> = parts
        .iter()
        .flat_map(|p| &p.stats)
        .filter(|s| s.service == "b")
        .flat_map(|s| &s.stats[0].stats)
        .map(|g| g.hits)
        .collect();
    hits.sort_unstable();
    assert_eq!(hits, (0..25).collect::<Vec<_>>());
}

#[test]
fn a_small_payload_stays_one_and_an_empty_one_is_none() {
    let parts = split(StatsPayload { stats: vec![source("a", 3), source("b", 4)], ..Default::default() }, 10);
    assert_eq!((parts.len(), parts[0].split_payload), (1, false));
    assert!(split(StatsPayload { stats: vec![source("a", 0)], ..Default::default() }, 10).is_empty());
}

#[test]
fn msgpack_has_the_intakes_names_in_order_and_the_shortest_forms() {
    let group = ClientGroupedStats {
        service: "s".repeat(40),
        http_status_code: 200,
        duration: u64::MAX,
        ok_summary: vec![7; 300],
        peer_tags: vec!["a:b".into()],
        is_trace_root: Trilean::False,
        ..Default::default()
    };
    let bucket = ClientStatsBucket { start: 70_000, duration: 300, stats: vec![group], agent_time_shift: -2 };
    let stats = vec![ClientStatsPayload { stats: vec![bucket], sequence: 127, ..Default::default() }];
    let mut out = Vec::new();
    encode(&StatsPayload { stats, client_computed: true, ..Default::default() }, &mut out);

    let key = |k: &str| [&[0xa0 | k.len() as u8], k.as_bytes()].concat();
    let empty = |k: &str| [key(k), vec![0xa0]].concat();
    let mut want = vec![0x86];
    want.extend([empty("AgentHostname"), empty("AgentEnv"), key("Stats"), vec![0x91, 0xde, 0, 16]].concat());
    want.extend([empty("Hostname"), empty("Env"), empty("Version"), key("Stats"), vec![0x91, 0x84]].concat());
    want.extend([key("Start"), vec![0xce, 0, 1, 0x11, 0x70], key("Duration"), vec![0xcd, 1, 44]].concat());
    want.extend(
        [key("Stats"), vec![0x91, 0xde, 0, 22], key("Service"), vec![0xd9, 40], vec![b's'; 40]].concat(),
    );
    want.extend([empty("Name"), empty("Resource"), key("HTTPStatusCode"), vec![0xcc, 200]].concat());
    want.extend([empty("Type"), empty("DBType"), key("Hits"), vec![0], key("Errors"), vec![0]].concat());
    want.extend([key("Duration"), vec![0xcf], vec![0xff; 8], key("OkSummary"), vec![0xc5, 1, 44]].concat());
    want.extend([vec![7; 300], key("ErrorSummary"), vec![0xc4, 0], key("Synthetics"), vec![0xc2]].concat());
    want.extend([key("TopLevelHits"), vec![0], empty("SpanKind"), key("PeerTags"), vec![0x91]].concat());
    want.extend(
        [key("a:b"), key("IsTraceRoot"), vec![2], empty("GRPCStatusCode"), empty("HTTPMethod")].concat(),
    );
    want.extend(
        [empty("HTTPEndpoint"), empty("srv_src"), key("SpanDerivedPrimaryTags"), vec![0x90]].concat(),
    );
    want.extend([key("AdditionalMetricTags"), vec![0x90]].concat());
    want.extend([key("AgentTimeShift"), vec![0xd3], (-2i64).to_be_bytes().to_vec()].concat());
    want.extend(
        [empty("Lang"), empty("TracerVersion"), empty("RuntimeID"), key("Sequence"), vec![127]].concat(),
    );
    want.extend([empty("AgentAggregation"), empty("Service"), empty("ContainerID"), key("Tags")].concat());
    want.extend([vec![0x90], empty("GitCommitSha"), empty("ImageTag"), key("ProcessTagsHash")].concat());
    want.extend([vec![0], empty("ProcessTags"), empty("AgentVersion")].concat());
    want.extend([key("ClientComputed"), vec![0xc3], key("SplitPayload"), vec![0xc2]].concat());
    assert_eq!(out, want);
}
