//! Obfuscation against a plain scan of the same bytes.
//! Run with `cargo bench -p spanloom-obfuscator`.

use std::hint::black_box;

use spanloom_benchkit::Group;
use spanloom_obfuscator::{Config, Obfuscator, SqlConfig, SqlMode};

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

    let redis: Vec<String> = (0..1_000)
        .map(|n| format!("HSET user:{n} name \"Jane {n}\" mail u{n}@example.com\nGET user:{n}"))
        .collect();
    let json: Vec<String> = (0..1_000)
        .map(|n| format!(r#"{{"find":"orders","filter":{{"customer":{n},"tags":["a","b{n}"],"paid":true}},"limit":{n}}}"#))
        .collect();
    let url: Vec<String> =
        (0..1_000).map(|n| format!("https://shop.example.com/orders/{n}/items?page={n}&q=x")).collect();
    type Work<'a> = &'a dyn Fn(&str) -> usize;
    let cases: [(&str, &Vec<String>, Work<'_>); 3] = [
        ("Redis", &redis, &|text| builtin.redis(text).len()),
        ("JSON", &json, &|text| builtin.mongodb(text).len()),
        ("URL", &url, &|text| builtin.url(text).len()),
    ];
    for (name, texts, work) in cases {
        Group::new(name, texts.iter().map(String::len).sum(), texts.len())
            .case("scan", || sum(texts, scan))
            .case("obfuscate", || sum(texts, work))
            .run();
    }
}
