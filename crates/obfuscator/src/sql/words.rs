//! Words the lexer knows (`go-sqllexer:sqllexer_utils.go`).

use super::lexer::Kind;

/// What a word is, and whether a table name follows it.
pub(super) fn lookup(word: &str) -> Option<(Kind, bool)> {
    const LONGEST: usize = 13;
    if word.len() > LONGEST || word.len() < 2 {
        return None;
    }
    let mut upper = [0u8; LONGEST];
    for (to, from) in upper.iter_mut().zip(word.bytes()) {
        *to = from.to_ascii_uppercase();
    }
    let kind = match &upper[..word.len()] {
        b"JOIN" | b"UPDATE" | b"STRAIGHT_JOIN" | b"CLONE" => return Some((Kind::Command, true)),
        b"FROM" | b"INTO" | b"TABLE" | b"EXISTS" | b"ONLY" => return Some((Kind::Keyword, true)),
        b"SELECT" | b"INSERT" | b"DELETE" | b"CREATE" | b"ALTER" | b"DROP" | b"GRANT" | b"REVOKE"
        | b"COMMIT" | b"BEGIN" | b"TRUNCATE" | b"MERGE" | b"EXECUTE" | b"EXEC" | b"EXPLAIN" | b"USE"
        | b"VACUUM" => Kind::Command,
        b"ADD" | b"ALL" | b"AND" | b"ANY" | b"ASC" | b"BETWEEN" | b"BY" | b"CASE" | b"CHECK" | b"COLUMN"
        | b"CONSTRAINT" | b"DATABASE" | b"DECLARE" | b"DEFAULT" | b"DESC" | b"DISTINCT" | b"ELSE"
        | b"END" | b"ESCAPE" | b"FOREIGN" | b"GROUP" | b"HAVING" | b"IN" | b"INDEX" | b"INNER" | b"IS"
        | b"KEY" | b"LATERAL" | b"LEFT" | b"LIKE" | b"LIMIT" | b"NOT" | b"ON" | b"OR" | b"ORDER" | b"OUT"
        | b"OUTER" | b"PRIMARY" | b"REPLACE" | b"RETURNS" | b"RIGHT" | b"ROLLBACK" | b"ROWNUM" | b"SET"
        | b"SOME" | b"TOP" | b"UNION" | b"UNIQUE" | b"VALUES" | b"VIEW" | b"WHERE" | b"CUBE" | b"ROLLUP"
        | b"LITERAL" | b"WINDOW" | b"ANALYZE" | b"ILIKE" | b"USING" | b"ASSERTION" | b"DOMAIN"
        | b"CLUSTER" | b"COPY" | b"PLPGSQL" | b"TRIGGER" | b"TEMPORARY" | b"UNLOGGED" | b"RECURSIVE"
        | b"RETURNING" | b"OFFSET" | b"OF" | b"SKIP" | b"IF" => Kind::Keyword,
        b"TRUE" | b"FALSE" => Kind::Boolean,
        b"NULL" => Kind::Null,
        b"PROCEDURE" | b"PROC" => Kind::Procedure,
        b"WITH" => Kind::Cte,
        b"AS" => Kind::Alias,
        _ => return None,
    };
    Some((kind, false))
}

/// Keywords that a column follows rather than a value.
pub(super) fn opens_names(keyword: &str) -> bool {
    ["where", "by", "on", "set", "having", "distinct"].iter().any(|word| keyword.eq_ignore_ascii_case(word))
}

/// Field names of `EXTRACT(field FROM …)`, which PostgreSQL's own statistics
/// print as a parameter.
pub(super) fn is_extract_field(word: &str) -> bool {
    const FIELDS: [&str; 22] = [
        "century",
        "day",
        "decade",
        "dow",
        "doy",
        "epoch",
        "hour",
        "isodow",
        "isoyear",
        "julian",
        "microseconds",
        "millennium",
        "milliseconds",
        "minute",
        "month",
        "quarter",
        "second",
        "timezone",
        "timezone_hour",
        "timezone_minute",
        "week",
        "year",
    ];
    FIELDS.iter().any(|field| word.eq_ignore_ascii_case(field))
}
