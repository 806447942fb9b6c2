//! Numbers in few characters: at most six.

/// Bits per second in the decimal units of `tc`, such as "94.2M".
pub(super) fn rate(bps: u64) -> String {
    scaled(bps as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// A count, such as "1042" or "123k".
pub(super) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        _ => scaled(n as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"]),
    }
}

/// Bytes in binary units, such as "1.5 GiB".
pub(super) fn bytes(n: u64) -> String {
    scaled(
        n as f64,
        1024.0,
        &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"],
    )
}

/// A time in milliseconds, such as "12.1ms" or "1.3s".
pub(super) fn time(ms: f64) -> String {
    match ms {
        ..10.0 => format!("{ms:.2}ms"),
        10.0..100.0 => format!("{ms:.1}ms"),
        100.0..10_000.0 => format!("{ms:.0}ms"),
        _ => format!("{:.0}s", ms / 1000.0),
    }
}

/// A part of the whole, 0 to 1, such as "75.0%".
pub(super) fn percent(part: f64) -> String {
    match part {
        0.9995.. => format!("{:.0}%", part * 100.0),
        _ => format!("{:.1}%", part * 100.0),
    }
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let places = usize::from(unit > 0 && value < 100.0);
    format!("{value:.places$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let rates = [0, 999, 1000, 94_200_000, 942_000_000, u64::MAX];
        assert_eq!(rates.map(rate), ["0", "999", "1.0k", "94.2M", "942M", "18.4E"]);
        assert_eq!([9999, 10_000, 1_000_000].map(count), ["9999", "10.0k", "1.0M"]);
        assert_eq!([1023, 1536].map(bytes), ["1023 B", "1.5 KiB"]);
        let times = [0.042, 12.06, 123.4, 12_345.0];
        assert_eq!(times.map(time), ["0.04ms", "12.1ms", "123ms", "12s"]);
        assert_eq!(
            [0.0, 0.123, 0.9996, 1.0].map(percent),
            ["0.0%", "12.3%", "100%", "100%"]
        );
    }
}
