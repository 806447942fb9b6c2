//! `[health]`, `[balance]`, capacities and quotas.

use super::broken::expect;
use super::*;

/// All of it; the limits of the second uplink are left to their defaults.
pub(super) const EVERY: &str = r#"[[uplink]]
name = "isp1"
interface = "eth0"
gateway = "192.168.1.1"
down = "1.5gbit"
up = "64kbit"
quota = { bytes = "200GB", per = "month", starts = 15, then = "disable" }
[[uplink]]
name = "isp2"
interface = "eth1"
gateway = "auto"
down = "500mbit"
up = "12mbps"
quota = { bytes = "1GiB" }
enabled = false
[health]
loss = "20%"
loss_recovery = "10%"
rtt = "200ms"
rtt_recovery = "150ms"
jitter = "50ms"
jitter_recovery = "20ms"
hold_down = "10s"
slow_start = "0s"
[balance]
by = "bandwidth"
"#;

fn health(text: &str) -> Result<Health, Problems> {
    read(&format!("{SMALLEST}[health]\n{text}")).map(|config| config.health)
}

#[test]
fn switches_a_minute_are_counted() {
    let of = |n: u32| health(&format!("switches_per_minute = {n}")).map(|h| h.switches_per_minute);
    assert_eq!((of(2).unwrap(), of(60).unwrap()), (2, 60));
    assert!(
        of(1).is_err() && of(61).is_err(),
        "a death and a recovery must be possible"
    );
}

#[test]
fn everything_can_be_written_out() {
    let config = read(EVERY).unwrap();
    let ms = Duration::from_millis;
    let limits = |worse, better| {
        Some(Limits {
            worse: ms(worse),
            better: ms(better),
        })
    };
    let health = Health {
        loss: Limits {
            worse: 0.2,
            better: 0.1,
        },
        rtt: limits(200, 150),
        jitter: limits(50, 20),
        hold_down: ms(10_000),
        slow_start: ms(0),
        switches_per_minute: 2,
    };
    assert_eq!(config.health, health);
    let [isp1, isp2] = [&config.uplinks[0], &config.uplinks[1]];
    assert_eq!(
        [isp1.capacity.down, isp1.capacity.up],
        [Some(1_500_000_000), Some(64_000)]
    );
    assert_eq!(
        [isp2.capacity.down, isp2.capacity.up],
        [Some(500_000_000), Some(96_000_000)]
    );
    let quota = Quota {
        bytes: 200_000_000_000,
        per: Period::Month,
        starts: 15,
        then: Then::Disable,
    };
    assert_eq!(isp1.quota, Some(quota));
    let quota = Quota {
        bytes: 1 << 30,
        per: Period::Month,
        starts: 1,
        then: Then::LastResort,
    };
    assert_eq!(isp2.quota, Some(quota));
    assert_eq!([isp1.enabled, isp2.enabled], [true, false]);
    assert_eq!(
        config.balance,
        Balance {
            by: By::Bandwidth,
            spillover: None
        }
    );
    assert_eq!(isp2.v4.as_ref().unwrap().address.value, NextHop::Auto);
}

#[test]
fn without_a_word_the_defaults_hold() {
    let config = read(SMALLEST).unwrap();
    assert_eq!(
        (config.health, config.balance),
        (Health::default(), Balance::default())
    );
    assert_eq!(
        (config.uplinks[0].capacity, config.uplinks[0].quota),
        (Capacity::default(), None)
    );
    assert!(config.uplinks[0].enabled);
}

#[test]
fn recovery_follows_its_limit() {
    let ms = Duration::from_millis;
    let told = health("rtt = \"100ms\"\njitter = \"10ms\"").unwrap();
    assert_eq!(
        told.rtt,
        Some(Limits {
            worse: ms(100),
            better: ms(80)
        })
    );
    assert_eq!(
        told.jitter,
        Some(Limits {
            worse: ms(10),
            better: ms(8)
        })
    );
    let loss = |text: &str| health(text).unwrap().loss;
    assert_eq!(
        loss("loss = \"30%\""),
        Limits {
            worse: 0.3,
            better: 0.05
        }
    );
    let low = loss("loss = \"5%\"");
    assert!(
        low.worse == 0.05 && (low.better - 0.05 / 3.0).abs() < 1e-12,
        "{low:?}"
    );
    assert_eq!(
        loss("loss_recovery = \"1%\""),
        Limits {
            worse: 0.15,
            better: 0.01
        }
    );
}

#[test]
fn spillover_and_bandwidth_need_every_capacity() {
    let spill = EVERY.replace("by = \"bandwidth\"", "spillover = \"80%\"");
    let balance = read(&spill).unwrap().balance;
    assert_eq!(
        balance,
        Balance {
            by: By::Weight,
            spillover: Some(0.8)
        }
    );
    for text in [spill, EVERY.to_owned()] {
        let text = text
            .replace("down = \"500mbit\"\n", "")
            .replace("up = \"64kbit\"\n", "");
        let problems = read(&text).unwrap_err();
        let shown = problems.to_string();
        assert!(
            shown.contains("u.toml:2:8\n") && shown.contains("u.toml:8:8\n"),
            "{shown}"
        );
        assert!(
            shown.contains("`up` of uplink isp1") && shown.contains("`down` of uplink isp2"),
            "{shown}"
        );
        assert!(shown.contains("`uplink status` suggests"), "{shown}");
        assert_eq!(problems.list.len(), 2);
    }
    let quality = EVERY
        .replace("bandwidth", "quality")
        .replace("down = \"500mbit\"\n", "");
    assert!(read(&quality).is_ok());
}

/// Text to replace in [`EVERY`], its replacement, and the place and text of the complaint.
#[rustfmt::skip] // One row, one line.
const BROKEN: &[(&str, &str, &str, &str)] = &[
    ("\"1.5gbit\"", "\"1.5\"", "5:8", "down \"1.5\" has no unit"),
    ("\"1.5gbit\"", "1500000000", "5:8", "down cannot be of type integer"),
    ("\"1.5gbit\"", "\"500Mbps\"", "5:8", "may mean bits or bytes"),
    ("\"1.5gbit\"", "\"1.5gib\"", "5:8", "is not a rate"),
    ("\"1.5gbit\"", "\"2tbit\"", "5:8", "8kbit to 1tbit"),
    ("\"64kbit\"", "\"7kbit\"", "6:6", "up \"7kbit\" is out of range"),
    ("bytes = \"200GB\", ", "", "7:9", "`bytes` is missing in quota of an [[uplink]]"),
    ("\"200GB\"", "\"200gb\"", "7:19", "is not a number of bytes"),
    ("\"200GB\"", "\"200\"", "7:19", "has no unit"),
    ("\"200GB\"", "\"999kB\"", "7:19", "is out of range"),
    ("\"200GB\"", "200", "7:19", "bytes cannot be of type integer"),
    ("per = \"month\"", "per = \"moth\"", "7:34", "did you mean \"month\"?"),
    ("per = \"month\"", "per = \"week\"", "7:51", "starts names the day of a month"),
    ("starts = 15", "starts = 29", "7:52", "starts 29 is out of range"),
    ("\"disable\"", "\"disabled\"", "7:63", "did you mean \"disable\"?"),
    ("then =", "thne =", "7:56", "did you mean \"then\"?"),
    ("{ bytes = \"1GiB\" }", "\"1GiB\"", "14:9", "a table in braces, such as quota = { bytes = \"200GB\""),
    ("enabled = false", "enabled = \"no\"", "15:11", "true or false"),
    ("\"20%\"", "\"20\"", "17:8", "does not end with %"),
    ("\"20%\"", "0.2", "17:8", "loss cannot be of type float"),
    ("\"20%\"", "\"0%\"", "17:8", "loss \"0%\" is out of range"),
    ("\"20%\"", "\"10%\"", "18:17", "loss_recovery is not below loss"),
    ("loss = \"20%\"\nloss_recovery = \"10%\"", "loss_recovery = \"15%\"", "17:17", "loss_recovery is not below loss"),
    ("\"200ms\"", "\"200\"", "19:7", "has no unit"),
    ("\"200ms\"", "\"2min\"", "19:7", "1ms to 1min"),
    ("\"150ms\"", "\"200ms\"", "20:16", "rtt_recovery is not below rtt"),
    ("jitter = \"50ms\"\n", "", "21:19", "jitter_recovery without jitter"),
    ("\"20ms\"", "\"50ms\"", "22:19", "jitter_recovery is not below jitter"),
    ("\"10s\"", "\"2h\"", "23:13", "0s to 1h"),
    ("\"0s\"", "\"61min\"", "24:14", "slow_start \"61min\" is out of range"),
    ("slow_start", "slowstart", "24:1", "did you mean \"slow_start\"?"),
    ("by = \"bandwidth\"", "by = \"bandwith\"", "26:6", "did you mean \"bandwidth\"?"),
    ("by = \"bandwidth\"", "by = \"latency\"\nspillover = \"80%\"", "27:13", "remove one of the two"),
    ("by = \"bandwidth\"", "spillover = \"0.5%\"", "26:13", "1% to 100%"),
    ("by = \"bandwidth\"", "spillover = 80", "26:13", "spillover cannot be of type integer"),
];

#[test]
fn every_mistake_is_shown_where_it_is() {
    expect(EVERY, BROKEN);
}

#[test]
fn somebody_is_enabled() {
    let off = |text: &str, name: &str| {
        text.replace(&format!("{name}\"\n"), &format!("{name}\"\nenabled = false\n"))
    };
    let one = off(SMALLEST, "isp1");
    assert!(!read(&one).unwrap().uplinks[0].enabled);
    let shown = read(&off(&one, "isp2")).unwrap_err().to_string();
    assert!(
        shown.contains("every uplink is disabled") && shown.contains("u.toml:2:8\n"),
        "{shown}"
    );
}

#[test]
fn one_interface_has_one_default_route_to_follow() {
    let text = SMALLEST
        .replace("192.168.1.1", "auto")
        .replace("10.0.0.1", "auto");
    let shown = read(&text).unwrap_err().to_string();
    assert!(
        shown.contains("uplinks isp1 and isp2 both follow the default route of eth0"),
        "{shown}"
    );
    assert!(shown.contains("u.toml:9:11\n"), "{shown}");
    // One of each family, or of each interface, is fine.
    let families = text.replacen("gateway = \"auto\"", "gateway6 = \"auto\"", 1);
    assert!(read(&families).is_ok());
    assert!(read(&text.replacen("eth0", "eth1", 1)).is_ok());
}
