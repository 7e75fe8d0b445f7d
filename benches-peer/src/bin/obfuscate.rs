//! SQL obfuscation: this project against DataDog/libdatadog's crate
//! `libdd-trace-obfuscation`, both against a plain scan.
//!
//! Run with `cargo run --release --bin obfuscate` in this folder.

use libdd_trace_obfuscation::sql::obfuscate_sql_string;
use spanloom_benchkit::Group;
use spanloom_obfuscator::{Config, Obfuscator};

// The program's allocator, for both.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let statements: Vec<String> = (0..1_000)
        .map(|n| {
            format!(
                "SELECT o.id, o.customer_id, o.created_at, c.name, i.sku FROM shop.orders AS o INNER JOIN \
                 shop.customers AS c ON c.id = o.customer_id LEFT JOIN order_items i ON i.order_id = o.id WHERE \
                 o.status IN ('paid', 'shipped', 'state{n}') AND o.total_amount > {n}.5 AND c.email = \
                 'user{n}@example.com' AND o.created_at BETWEEN '2024-01-01 00:00:00' AND '2024-12-31 23:59:59' \
                 AND i.sku LIKE '%abc-{n}%' /* action='list' */ ORDER BY o.created_at DESC LIMIT {n}, 50"
            )
        })
        .collect();
    let bytes = statements.iter().map(String::len).sum();
    let ours = Obfuscator::new(Config::agent());
    Group::new("SQL, distinct statements", bytes, statements.len())
        .case("scan", || statements.iter().map(|s| s.bytes().filter(|b| *b == b'\'').count()).sum())
        .case("spanloom", || statements.iter().map(|s| ours.sql_text(s, None).len()).sum())
        .case("libdatadog", || {
            statements.iter().filter_map(|s| obfuscate_sql_string(s).ok()).map(|s| s.len()).sum()
        })
        .run();
}
