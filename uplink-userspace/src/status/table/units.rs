//! Numbers as people read them.

/// Binary units, one decimal.
pub(super) fn bytes(n: u64) -> String {
    scaled(n, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Bits per second, in decimal units as providers write them.
pub(super) fn rate(bps: u64) -> String {
    scaled(bps, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// A part of one.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn scaled(n: u64, step: f64, units: &[&str]) -> String {
    let mut value = n as f64;
    let mut unit = 0;
    // What would be rounded up to a step belongs to the next unit.
    while value >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    match unit {
        0 => format!("{n} {}", units[0]),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        let texts = [0, 1023, 1536, 1024 * 1024 - 1].map(bytes);
        assert_eq!(texts, ["0 B", "1023 B", "1.5 KiB", "1.0 MiB"]);
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn rates_are_decimal() {
        let texts = [0, 999, 1_200_000, 999_999].map(rate);
        assert_eq!(texts, ["0 bit/s", "999 bit/s", "1.2 Mbit/s", "1.0 Mbit/s"]);
    }
}
