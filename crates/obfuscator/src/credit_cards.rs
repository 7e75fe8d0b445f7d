//! Card numbers in tag values.
//! Rules: `datadog-agent:pkg/obfuscate/credit_cards.go`.

/// What the leading digits of a number say about the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardPrefix {
    /// An issuer's prefix.
    Yes,
    /// More digits may make it one.
    Maybe,
    /// Not a card.
    No,
}

/// Issuer prefixes as inclusive ranges of numbers with the same count of digits.
const ISSUERS: [&[(u32, u32)]; 6] = [
    &[(1, 1), (4, 4)],
    &[(34, 39), (51, 55), (62, 62), (65, 65)],
    &[(300, 305), (309, 309), (636, 636), (644, 649)],
    &[(3528, 3589), (5019, 5019), (6011, 6011)],
    &[],
    &[(222_100, 272_099), (500_000, 509_999), (560_000, 589_999), (600_000, 699_999)],
];

const fn judge(number: u32) -> CardPrefix {
    let digits = match number.checked_ilog10() {
        Some(log) => log as usize + 1,
        None => 1,
    };
    if digits > ISSUERS.len() {
        return CardPrefix::No;
    }
    let mut divisor = 1;
    let mut at = digits - 1;
    while at < ISSUERS.len() {
        let mut range = 0;
        while range < ISSUERS[at].len() {
            let (low, high) = ISSUERS[at][range];
            if low / divisor <= number && number <= high / divisor {
                return if divisor == 1 { CardPrefix::Yes } else { CardPrefix::Maybe };
            }
            range += 1;
        }
        divisor *= 10;
        at += 1;
    }
    CardPrefix::No
}

/// The verdicts on numbers of up to three digits: hardly a value that is no card
/// number needs more to be told.
const SHORT: [CardPrefix; 1000] = {
    let mut verdicts = [CardPrefix::No; 1000];
    let mut number = 0;
    while number < 1000 {
        verdicts[number] = judge(number as u32);
        number += 1;
    }
    verdicts
};

/// Judges the number formed by the first digits (up to six) of a value.
pub fn card_prefix(number: u32) -> CardPrefix {
    match SHORT.get(number as usize) {
        Some(verdict) => *verdict,
        None => judge(number),
    }
}

/// Whether a whole value is a card number: 12 to 16 digits with blanks and
/// dashes between them, beginning with an issuer's prefix, and with a valid
/// checksum if `luhn` asks for one.
#[inline]
pub fn is_card_number(value: impl AsRef<[u8]>, luhn: bool) -> bool {
    let bytes = value.as_ref();
    // Most tag values end here.
    bytes.len() >= 12 && matches!(bytes[0], b' ' | b'-' | b'0'..=b'9') && reads_as_card(bytes, luhn)
}

fn reads_as_card(bytes: &[u8], luhn: bool) -> bool {
    let mut digits = [0u8; 16];
    let mut count = 0;
    let mut prefix = 0;
    let mut known = false;
    for &b in bytes {
        match b {
            b' ' | b'-' => continue,
            b'0'..=b'9' if count < digits.len() => digits[count] = b - b'0',
            _ => return false,
        }
        count += 1;
        if !known {
            prefix = prefix * 10 + u32::from(b - b'0');
            match card_prefix(prefix) {
                CardPrefix::Yes => known = true,
                CardPrefix::Maybe => {}
                CardPrefix::No => return false,
            }
        }
    }
    count >= 12 && known && (!luhn || luhn_valid(&digits[..count]))
}

fn luhn_valid(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| match u32::from(digit) << (at % 2) {
            double @ 10.. => double - 9,
            digit => digit,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Keys whose values are known not to be card numbers, sorted.
const SAFE_KEYS: [&str; 31] = [
    "account_id",
    "aws_account",
    "config.spark_app_startTime",
    "config.spark_databricks_job_parentRunId",
    "databricks_job_id",
    "databricks_job_run_id",
    "databricks_task_run_id",
    "env",
    "error",
    "error.msg",
    "error.stack",
    "error.type",
    "graphql.field",
    "graphql.operation.name",
    "graphql.query",
    "graphql.type",
    "grpc.code",
    "grpc.method",
    "grpc.request",
    "http.method",
    "http.status_code",
    "out.host",
    "out.port",
    "runtime-id",
    "sampling.priority",
    "service",
    "service.name",
    "span.name",
    "span.type",
    "sql.query",
    "version",
];

/// Whether the value of a tag is looked at: not for internal keys (leading
/// `_`) and not for keys known to be harmless.
pub fn key_may_hold_card(key: impl AsRef<[u8]>) -> bool {
    let key = key.as_ref();
    !key.starts_with(b"_") && SAFE_KEYS.binary_search_by(|safe| safe.as_bytes().cmp(key)).is_err()
}
