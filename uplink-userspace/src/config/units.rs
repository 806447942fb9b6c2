//! Numbers with units, as people write them: `"15%"`, `"1.5gbit"`, `"200GB"`.

use std::ops::RangeInclusive;

use super::reader::{Refusal, meant, wrong};

/// Rates of `tc`, all decimal. Bits in any case, as `tc` has it; bytes in small letters only,
/// since "Mbps" means bits to most people and bytes to `tc`.
const BITS: [(&str, u64); 5] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("tbit", 1_000_000_000_000),
];
const BYTES_PER_SECOND: [(&str, u64); 4] = [
    ("bps", 8),
    ("kbps", 8_000),
    ("mbps", 8_000_000),
    ("gbps", 8_000_000_000),
];

/// Bytes: decimal as in SI, binary as in IEC 80000-13.
const BYTES: [(&str, u64); 8] = [
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Bits per second.
pub(super) fn rate(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Refusal> {
    let (number, unit) = split(text);
    let bits = BITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name));
    let bytes = BYTES_PER_SECOND.iter().find(|(name, _)| unit == *name);
    let factor = match bits.or(bytes) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => return Err(no_unit(number, "mbit")),
        None => return Err(no_rate(number, unit)),
    };
    within(number, factor, range, "is not a rate")
}

/// Bytes.
pub(super) fn bytes(text: &str, range: &RangeInclusive<u64>) -> Result<u64, Refusal> {
    let (number, unit) = split(text);
    if unit.is_empty() {
        return Err(no_unit(number, "GB"));
    }
    let found = BYTES.iter().find(|(name, _)| unit == *name);
    let (_, factor) = found.ok_or_else(|| no_bytes(number, unit))?;
    within(number, *factor, range, "is not a number of bytes")
}

/// A number alone, with the unit that most people would use.
fn no_unit(number: &str, unit: &str) -> Refusal {
    match is_number(number) && number.len() <= 6 {
        true => meant("has no unit", format!("\"{number}{unit}\"")),
        false => wrong("has no unit"),
    }
}

/// Providers sell "Mbps" and mean bits, which is "mbit" to `tc`.
fn no_rate(number: &str, unit: &str) -> Refusal {
    let unit = unit.to_ascii_lowercase();
    let bits = BITS
        .iter()
        .find(|(name, _)| name.chars().next() == unit.chars().next());
    let why = match unit.ends_with("bps") {
        true => "may mean bits or bytes: mbit is a million bits, mbps a million bytes",
        false => "is not a rate",
    };
    match bits.filter(|_| is_number(number)) {
        Some((name, _)) => meant(why, format!("\"{number}{name}\"")),
        None => wrong(why),
    }
}

/// Small and capital letters matter: the unit that differs in those only, or lacks its "B".
fn no_bytes(number: &str, unit: &str) -> Refusal {
    let whole = format!("{unit}B");
    let like = |(name, _): &&(&str, u64)| unit.eq_ignore_ascii_case(name) || whole.eq_ignore_ascii_case(name);
    match BYTES.iter().find(like).filter(|_| is_number(number)) {
        Some((name, _)) => meant("is not a number of bytes", format!("\"{number}{name}\"")),
        None => wrong("is not a number of bytes"),
    }
}

/// A part of one, from its percentage.
pub(super) fn percent(text: &str, range: &RangeInclusive<f64>) -> Result<f64, Refusal> {
    let number = text.strip_suffix('%').ok_or_else(|| no_percent(text))?;
    let number = number.trim_end();
    let plain = number.starts_with(|c: char| c.is_ascii_digit())
        && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let value: Option<f64> = number.parse().ok().filter(|_| plain);
    let value = value.ok_or_else(|| wrong("is not a percentage"))?;
    match range.contains(&value) {
        true => Ok(value / 100.0),
        false => Err(wrong("is out of range")),
    }
}

/// Whether a suggestion can repeat it.
fn is_number(text: &str) -> bool {
    text.len() <= 15 && text.parse::<f64>().is_ok()
}

/// A number alone: the percentage, or below 1 the part that it is.
fn no_percent(text: &str) -> Refusal {
    let why = "does not end with %";
    let plain = is_number(text) && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match text.parse::<f64>().ok().filter(|_| plain) {
        // Rounded, since 0.07 times 100 is not 7.
        Some(part) if part < 1.0 && part > 0.0 => meant(why, format!("\"{}%\"", (part * 1e6).round() / 1e4)),
        Some(_) => meant(why, format!("\"{text}%\"")),
        None => wrong(why),
    }
}

/// The number and the unit behind it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    (number, unit.trim_start())
}

fn within(number: &str, factor: u64, range: &RangeInclusive<u64>, what: &str) -> Result<u64, Refusal> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| text.parse::<u64>().ok().filter(|_| text.len() <= 15);
    let (Some(whole), Some(part)) = (digits(whole), digits(fraction)) else {
        return Err(wrong(what));
    };
    // At most 15 digits times 10^12, or a fraction of 10^12: neither overflows 128 bits.
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(15));
    let value = u128::from(whole) * u128::from(factor) + u128::from(part) * u128::from(factor) / scale;
    let value = u64::try_from(value).ok().filter(|value| range.contains(value));
    value.ok_or_else(|| wrong("is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(result: Result<u64, Refusal>) -> Result<u64, String> {
        result.map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn rates_are_those_of_tc() {
        let of = |text: &str| told(rate(text, &(1..=u64::MAX)));
        assert_eq!(of("500mbit"), Ok(500_000_000));
        assert_eq!(of("1.5gbit"), Ok(1_500_000_000));
        assert_eq!(of("0.5 Kbit"), Ok(500));
        assert_eq!(of("1tbit"), Ok(1_000_000_000_000));
        assert_eq!(of("12mbps"), Ok(96_000_000));
        assert_eq!(of("8bps"), Ok(64));
        for (text, why) in [
            ("500", "has no unit"),
            ("", "has no unit"),
            ("500Mbps", "bits or bytes"),
            ("500Mb", "is not a rate"),
            ("mbit", "is not a rate"),
            ("1.2.3mbit", "is not a rate"),
            ("1.mbit", "is not a rate"),
            ("-1mbit", "is not a rate"),
            ("1e3mbit", "is not a rate"),
            ("9999999999999999mbit", "is not a rate"),
            ("999999999999999tbit", "is out of range"),
            ("0bit", "is out of range"),
        ] {
            let shown = of(text).expect_err(text);
            assert!(shown.contains(why), "{text}: {shown}");
        }
    }

    #[test]
    fn bytes_are_decimal_or_binary_and_never_small_letters() {
        let of = |text: &str| told(bytes(text, &(1..=u64::MAX)));
        assert_eq!(of("200GB"), Ok(200_000_000_000));
        assert_eq!(of("1.5TiB"), Ok(3 << 39));
        assert_eq!(of("1 KiB"), Ok(1024));
        assert_eq!(of("1kB"), Ok(1000));
        for text in ["200gb", "200Gb", "200G", "GB", "200GB/s"] {
            assert_eq!(of(text), Err("is not a number of bytes".into()));
        }
        assert_eq!(of("200"), Err("has no unit".into()));
    }

    #[test]
    fn percentages_are_parts_of_one() {
        let of = |text: &str| percent(text, &(0.0..=100.0)).ok();
        assert_eq!(of("15%"), Some(0.15));
        assert_eq!(of("0.5 %"), Some(0.005));
        assert_eq!(of("100%"), Some(1.0));
        for text in ["15", "101%", "-1%", "1e1%", "inf%", "nan%", "%", ".5%", "1.2.3%"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
