//! Obfuscation against a plain scan of the same bytes.
//! Run with `cargo bench -p spanloom-obfuscator`.

use std::hint::black_box;

use spanloom_benchkit::Group;
use spanloom_obfuscator::{Config, Obfuscator, SqlConfig, SqlMode, quantize_peer_ip, quantize_redis};

/// Distinct statements of about 500 bytes, as an object mapper writes them.
fn statements(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            format!(
                "SELECT o.id, o.customer_id, o.created_at, o.total_amount, c.name, c.email, i.sku, i.quantity FROM \
                 shop.orders AS o INNER JOIN shop.customers AS c ON c.id = o.customer_id LEFT JOIN order_items i ON \
                 i.order_id = o.id WHERE o.status IN ('paid', 'shipped', 'state{n}') AND o.total_amount > {n}.5 AND \
                 c.email = 'user{n}@example.com' AND o.created_at BETWEEN '2024-01-01 00:00:00' AND '2024-12-31 \
                 23:59:59' AND i.sku LIKE '%abc-{n}%' /* action='list' */ ORDER BY o.created_at DESC LIMIT {n}, 50"
            )
        })
        .collect()
}

/// Statements of about 500 bytes whose values are most of it.
fn lists(count: usize) -> Vec<String> {
    let statement = |n: usize| {
        let ids: Vec<String> = (0..22).map(|i| ((n * 7919 + i * 104_729) % 1_000_000).to_string()).collect();
        format!(
            "SELECT o.id, o.total, c.name, c.email FROM orders o JOIN customers c ON c.id = o.customer_id WHERE \
             o.tenant = 'tenant-{n:x}' AND o.created_at > '2026-11-01 12:00:00' AND o.total >= {n}.50 AND o.status \
             IN ('paid', 'shipped', 'returned') AND c.region = 'eu-{n}' AND o.id IN ({}) ORDER BY o.created_at \
             DESC LIMIT 50",
            ids.join(", ")
        )
    };
    (0..count).map(statement).collect()
}

/// What any pass over the text costs at least.
fn scan(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\'').count()
}

fn sum(texts: &[String], work: impl Fn(&str) -> usize) -> usize {
    texts.iter().map(|text| black_box(work(text))).sum()
}

fn main() {
    let sql = statements(1_000);
    let bytes = sql.iter().map(String::len).sum();
    let with =
        |mode| Obfuscator::new(Config { sql: SqlConfig { mode, ..SqlConfig::default() }, ..Config::agent() });
    let (builtin, only, both) =
        (with(SqlMode::Builtin), with(SqlMode::ObfuscateOnly), with(SqlMode::ObfuscateAndNormalize));
    let done: Vec<String> = sql.iter().map(|text| builtin.sql_text(text, None).into_owned()).collect();
    let mut cache = spanloom_obfuscator::SqlCache::new(5_000_000);
    Group::new("SQL, distinct statements", bytes, sql.len())
        .case("scan", || sum(&sql, scan))
        .case("built-in", || sum(&sql, |text| builtin.sql_text(text, None).len()))
        .case("built-in, nothing to do", || sum(&done, |text| builtin.sql_text(text, None).len()))
        .case("obfuscate_only", || sum(&sql, |text| only.sql_text(text, None).len()))
        .case("obfuscate_and_normalize", || sum(&sql, |text| both.sql_text(text, None).len()))
        .case("cache, all known", || {
            sql.iter().map(|text| builtin.sql_cached(text, None, &mut cache).len()).sum()
        })
        .run();

    let lists = lists(1_000);
    let many: Vec<String> =
        (0..20).flat_map(|n| lists.iter().map(move |text| format!("{text} + {n}"))).collect();
    let mut full = spanloom_obfuscator::SqlCache::new(5_000_000);
    Group::new("SQL, lists of values", lists.iter().map(String::len).sum(), lists.len())
        .case("scan", || sum(&lists, scan))
        .case("built-in", || sum(&lists, |text| builtin.sql_text(text, None).len()))
        .run();
    Group::new("SQL, all unknown to the cache", many.iter().map(String::len).sum(), many.len())
        .case("scan", || sum(&many, scan))
        .case("built-in", || sum(&many, |text| builtin.sql_text(text, None).len()))
        .case("cache", || many.iter().map(|text| builtin.sql_cached(text, None, &mut full).len()).sum())
        .run();

    let numbered = |make: &dyn Fn(usize) -> String| (0..1_000).map(make).collect::<Vec<String>>();
    let search = numbered(&|n| {
        format!(
            r#"{{"query": {{"bool": {{"must": [{{"match": {{"title": "words that were looked for {n}"}}}}], "filter": [{{"range": {{"price": {{"gte": {n}, "lte": 900.5}}}}}}]}}}}, "size": 20}}"#
        )
    });
    let plain = numbered(&|n| format!("http://shop.example.com/orders/{n}/items"));
    let user = numbered(&|n| format!("https://me:secret{n}@shop.example.com/orders/{n}"));
    let memcached = numbered(&|n| format!("set user:{n} 0 60 5\r\nhello"));
    let words = numbered(&|n| format!("orders-service-{n}.example"));
    let dates = numbered(&|n| format!("2024-12-{:02}T12:00:00Z", n % 30));
    let hosts = numbered(&|n| format!("postgres-{n}.db.svc"));
    let addresses = numbered(&|n| format!("10.0.{}.{}:5432", n / 256, n % 256));
    let brokers = numbered(&|n| format!("kafka-{n}.svc:9092,kafka-a.svc:9092,kafka-b.svc:9092"));
    let redis: Vec<String> = (0..1_000)
        .map(|n| format!("HSET user:{n} name \"Jane {n}\" mail u{n}@example.com\nGET user:{n}"))
        .collect();
    let json: Vec<String> = (0..1_000)
        .map(|n| format!(r#"{{"find":"orders","filter":{{"customer":{n},"tags":["a","b{n}"],"paid":true}},"limit":{n}}}"#))
        .collect();
    let url: Vec<String> =
        (0..1_000).map(|n| format!("https://shop.example.com/orders/{n}/items?page={n}&q=x")).collect();
    type Work<'a> = &'a dyn Fn(&str) -> usize;
    let card = |text: &str| usize::from(builtin.is_card("http.route", text));
    let peer = |text: &str| quantize_peer_ip(text).len();
    let cases: [(&str, &Vec<String>, Work<'_>); 13] = [
        ("Redis", &redis, &|text| builtin.redis(text).len()),
        ("Redis, resource", &redis, &|text| quantize_redis(text).len()),
        ("Memcached", &memcached, &|text| builtin.memcached(text).len()),
        ("JSON, MongoDB", &json, &|text| builtin.mongodb(text).len()),
        ("JSON, Elasticsearch", &search, &|text| builtin.elasticsearch(text).len()),
        ("URL", &url, &|text| builtin.url(text).len()),
        ("URL without query", &plain, &|text| builtin.url(text).len()),
        ("URL with user information", &user, &|text| builtin.url(text).len()),
        ("cards: words", &words, &card),
        ("cards: dates", &dates, &card),
        ("peers: hosts", &hosts, &peer),
        ("peers: addresses", &addresses, &peer),
        ("peers: lists", &brokers, &peer),
    ];
    for (name, texts, work) in cases {
        Group::new(name, texts.iter().map(String::len).sum(), texts.len())
            .case("scan", || sum(texts, scan))
            .case("obfuscate", || sum(texts, work))
            .run();
    }
}
