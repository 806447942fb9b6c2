//! The scenarios on the lab, each in a process of its own: `lab [--list] [FILTER...]`.
//!
//! Not libtest: the lab changes its mount namespace, which needs a process with one thread.

mod abuse;
mod auto;
mod balance;
mod bell;
mod calm;
mod coexist;
mod crowd;
mod dead_flows;
mod detect;
mod doctor;
mod events;
mod explain;
mod failback;
mod failover;
mod fast;
mod fleet;
mod fragments;
mod handmade;
mod hooks;
mod host;
mod icmp;
mod inbound;
mod jumbo;
mod kernel;
mod kill;
mod layout;
mod liars;
mod lifecycle;
mod metrics;
mod mpath;
mod mtu;
mod names;
mod nexthop;
mod pair;
mod pair_ha;
mod pins;
mod plan;
mod policies;
mod probes;
mod reload;
mod selftest;
mod spoof;
mod stale;
mod support;
mod tamper;
mod top;
mod translation;
mod tunnels;
mod weights;
mod wires;

use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, exit};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

type Scenario = (&'static str, fn() -> Result<()>);

/// The file in which a scenario leaves the reason of its failure.
const CAUSE: &str = "UPLINK_LAB_CAUSE";

/// No scenario may take longer, but for those in [`LIMITS`].
const LIMIT: Duration = Duration::from_secs(60);

/// So many of them are told at the end, with the time they took.
const SLOWEST: usize = 20;

/// Scenarios whose matter needs more time.
const LIMITS: &[(&str, Duration)] = &[
    ("fleet_kill9", Duration::from_secs(300)),
    ("kill_nth_start", Duration::from_secs(600)),
    ("kill_nth_failover", Duration::from_secs(360)),
    ("kill_nth_stop", Duration::from_secs(120)),
    ("detect_default", Duration::from_secs(300)),
    ("detect_50ms", Duration::from_secs(240)),
    ("detect_passive", Duration::from_secs(300)),
    ("detect_carrier", Duration::from_secs(240)),
    ("detect_arp", Duration::from_secs(240)),
    ("detect_refused", Duration::from_secs(240)),
    ("detect_brownout", Duration::from_secs(240)),
    ("bandwidth_downloads", Duration::from_secs(180)),
    ("flapping", Duration::from_secs(180)),
    ("starved_cpu", Duration::from_secs(120)),
    ("probe_dns", Duration::from_secs(150)),
    ("probe_http", Duration::from_secs(150)),
    ("probe_exec", Duration::from_secs(150)),
    ("probe_icmp_liars", Duration::from_secs(90)),
    ("auto_follows", Duration::from_secs(90)),
    ("policy_schedule", Duration::from_secs(120)),
    ("names_learned", Duration::from_secs(120)),
    ("names_learned_here", Duration::from_secs(120)),
    ("names_learned_host", Duration::from_secs(120)),
    ("events_told", Duration::from_secs(90)),
    ("hooks_in_nobodys_way", Duration::from_secs(180)),
    ("fast_kept", Duration::from_secs(120)),
    ("fast_alike", Duration::from_secs(120)),
];

const SCENARIOS: &[Scenario] = &[
    ("lab_one_nic", selftest::one_nic),
    ("lab_nic_each", selftest::nic_each),
    ("lab_faults", selftest::faults),
    ("lab_snapshot", selftest::snapshot),
    ("lab_inbound", handmade::inbound),
    ("lab_host", handmade::host),
    ("lab_fleet", handmade::fleet),
    ("lab_swarm", handmade::swarm),
    ("lab_silent_mac", handmade::silent_mac),
    ("lab_delay", wires::delay),
    ("lab_jitter_and_loss", wires::jitter_and_loss),
    ("lab_shape", wires::shape),
    ("lab_mute", wires::mute),
    ("lab_flapping", wires::flapping),
    ("lab_busy", wires::busy),
    ("lab_paced", wires::paced),
    ("lab_icmp_lies", liars::icmp),
    ("lab_dns", liars::dns),
    ("lab_web", liars::web),
    ("lab_autoconf", liars::autoconf),
    ("balance_v4", balance::v4),
    ("balance_v6", balance::v6),
    ("balance_nic_each", balance::nic_each),
    ("flow_keeps_uplink", balance::flow_keeps_uplink),
    ("nat_off", balance::nat_off),
    ("failover_blackhole", failover::blackhole),
    ("failover_v6", failover::blackhole_v6),
    ("failover_100k", dead_flows::hundred_thousand),
    ("on_failover_reset", dead_flows::reset),
    ("failover_then_recovery", failover::then_recovery),
    ("all_dead_keeps_table", failover::all_dead_keeps_table),
    ("inbound_box", inbound::the_box),
    ("inbound_box_v6", inbound::the_box_v6),
    ("inbound_port_forward", inbound::port_forward),
    ("inbound_port_forward_v6", inbound::port_forward_v6),
    ("inbound_shared_mac", inbound::shared_mac),
    ("nic_each_inbound", inbound::nic_each),
    ("host_tcp", host::tcp),
    ("host_udp_connected", host::udp_connected),
    ("host_udp_sendto", host::udp_sendto),
    ("host_by_reload", host::by_reload),
    ("host_bound_left_alone", host::bound_left_alone),
    ("host_udp_follows_failover", host::udp_follows_failover),
    ("fleet_survives", fleet::survives),
    ("fleet_kill9", fleet::kill9),
    ("pins_evicted", pins::evicted),
    ("failback_pin", failback::pin),
    ("failback_drain", failback::drain),
    ("failback_drain_in_vain", failback::drain_in_vain),
    ("failback_reset", failback::reset),
    ("fragments", fragments::translated),
    ("fragments_nat_off", fragments::untranslated),
    ("icmp_errors", icmp::errors),
    ("icmp_errors_of_clients", icmp::of_clients),
    ("icmp_no_redirects", icmp::no_redirects),
    ("mtu_and_mss", mtu::and_mss),
    ("mtu_inward", mtu::inward),
    ("jumbo_frames", jumbo::frames),
    ("fast_alike", fast::alike),
    ("fast_chosen", fast::chosen),
    ("fast_spread", fast::spread),
    ("fast_failover", fast::failed_over),
    ("fast_full", fast::full),
    ("fast_ttl", fast::counted),
    ("fast_kept", fast::kept),
    ("fast_apart", fast::apart),
    ("fast_one_way", fast::one_way),
    ("fast_explained", fast::explained),
    ("fast_transfer", fast::whole),
    ("fast_unfinished", fast::unfinished),
    ("fast_firewall", fast::firewall),
    ("fast_legacy", fast::legacy_firewall),
    ("fast_conntrack", fast::flushed),
    ("fast_crowd_gone", fast::crowd_gone),
    ("fast_neighbour", fast::moved_gateway),
    ("fast_neighbour_lost", fast::lost_neighbour),
    ("fast_close", fast::closed),
    ("fast_silent_daemon", fast::silent),
    ("fast_restart", fast::restarted),
    ("fast_storm", fast::storm),
    ("bell_changes", bell::changes),
    ("bell_burst", bell::burst),
    ("bell_overrun", bell::overrun),
    ("bell_told", bell::told),
    ("bell_flushed", bell::flushed),
    ("bell_obstacles", bell::obstacles),
    ("bell_daemon_tcx", bell::tcx),
    ("bell_daemon_clsact", bell::clsact),
    ("nexthop_spread", nexthop::spread),
    ("nexthop_failover", nexthop::failed_over),
    ("nexthop_drain", nexthop::drained),
    ("nexthop_ttl", nexthop::counted),
    ("nexthop_mtu", nexthop::too_long),
    ("nexthop_transfer", nexthop::whole),
    ("nexthop_firewall", nexthop::firewall),
    ("nexthop_legacy", nexthop::legacy_firewall),
    ("nexthop_not_forwarding", nexthop::not_forwarding),
    ("nexthop_xfrm", nexthop::xfrm),
    ("nexthop_filters", nexthop::filters),
    ("nexthop_nat", nexthop::nat),
    ("nexthop_refused", nexthop::refused_with_nat),
    ("nexthop_warned", nexthop::warned_of),
    ("nexthop_silent_daemon", nexthop::silent_daemon),
    ("prefix_translation", translation::prefixes),
    ("gre_esp", tunnels::gre_esp),
    ("other_abi_refused", layout::other_abi_refused),
    ("stale_after", stale::stale_after),
    ("clean_stop", lifecycle::clean_stop),
    ("start_interrupted", lifecycle::interrupted_start),
    ("log_mute", lifecycle::mute_log),
    ("many_addresses", lifecycle::many_addresses),
    ("kill9_then_down", lifecycle::kill9_then_down),
    ("start_late", reload::late),
    ("reload_new_source", reload::new_source),
    ("reload_no_authority", reload::no_authority),
    ("reload_half_way", reload::half_way),
    (
        "kill9_then_restart_keeps_flows",
        lifecycle::kill9_then_restart_keeps_flows,
    ),
    ("usr1_keeps_steering", lifecycle::usr1_keeps_steering),
    ("second_daemon_refused", lifecycle::second_daemon_refused),
    ("bad_config_exit_2", lifecycle::bad_config_exit_2),
    ("check_tells_mistakes", lifecycle::mistakes),
    ("idle_cost", lifecycle::idle_cost),
    ("tamper_rules", tamper::rules),
    ("tamper_routes", tamper::routes),
    ("tamper_nft", tamper::nft),
    ("tamper_untranslated", tamper::untranslated),
    ("tamper_beside_ours", tamper::beside_ours),
    ("tamper_program", tamper::program),
    ("tamper_pins", tamper::pins),
    ("tamper_address", tamper::address),
    ("tamper_link", tamper::link),
    ("tamper_overrun", tamper::overrun),
    ("tamper_shadow", tamper::shadow),
    ("tamper_gateway_mac", tamper::gateway_mac),
    ("tamper_gateway_mac_v6", tamper::gateway_mac_v6),
    ("kill_nth_start", kill::nth_start),
    ("kill_nth_failover", kill::nth_failover),
    ("kill_nth_stop", kill::nth_stop),
    ("detect_default", detect::by_default),
    ("detect_50ms", detect::at_50ms),
    ("detect_passive", detect::passive),
    ("detect_carrier", detect::carrier),
    ("detect_arp", detect::arp),
    ("detect_refused", detect::refused),
    ("detect_brownout", detect::brownout),
    ("latency_shares", weights::latency),
    ("bandwidth_downloads", weights::downloads),
    ("spillover", weights::spillover),
    ("quota", weights::quota),
    ("flapping", calm::flapping),
    ("dead_target", calm::dead_target),
    ("starved_cpu", calm::starved_cpu),
    ("probe_cost", calm::probe_cost),
    ("probe_tcp", probes::tcp),
    ("probe_dns", probes::dns),
    ("probe_http", probes::http),
    ("probe_https", probes::https),
    ("probe_exec", probes::exec),
    ("probe_icmp_liars", probes::icmp_liars),
    ("auto_follows", auto::follows),
    ("auto_lease_ends", auto::lease_ends),
    ("mpath_shares", mpath::shares),
    ("mpath_host", mpath::host),
    ("mpath_failover", mpath::failover),
    ("mpath_adopted", mpath::adopted),
    ("mpath_comes_and_goes", mpath::comes_and_goes),
    ("mpath_mended", mpath::mended),
    ("mpath_foreign_refused", mpath::foreign_refused),
    ("mpath_no_circle", mpath::no_circle),
    ("names_known", names::known),
    ("names_learned", names::learned::forwarded),
    ("names_learned_here", names::learned::here),
    ("names_learned_host", names::learned::host),
    ("names_resolvers", names::resolvers::teach),
    ("names_asked", names::resolvers::asked),
    ("names_tricks", names::tricks::no_harm),
    ("names_expiry", names::life::expiry),
    ("names_no_gap", names::life::no_gap),
    ("names_shared", names::life::shared),
    ("names_kept", names::life::kept),
    ("names_share", names::life::share),
    ("policy_header", policies::matchers::by_header),
    ("policy_protocol", policies::matchers::by_protocol),
    ("policy_link", policies::matchers::by_link),
    ("policy_schedule", policies::schedule::begins),
    ("policy_host", policies::host::owners),
    ("policy_host_flows", policies::host::flows),
    ("policy_ordered", policies::choice::ordered),
    ("policy_weighted", policies::choice::weighted),
    ("policy_lowest_latency", policies::choice::lowest_latency),
    ("policy_strict", policies::strict::clients),
    ("policy_strict_host", policies::strict::sockets),
    ("policy_strict_family", policies::strict::one_family),
    ("policy_sticky_host", policies::sticky::host),
    ("policy_sticky", policies::sticky::source),
    ("policy_sticky_both", policies::sticky::both),
    ("policy_reload", policies::reload::keeps_flows),
    ("plan_start", plan::start),
    ("plan_edit", plan::edit),
    ("plan_refused", plan::refused),
    ("plan_retagged", plan::retagged),
    ("plan_tampered", plan::tampered),
    ("doctor_healthy", doctor::healthy),
    ("doctor_findings", doctor::findings),
    ("doctor_links", doctor::links),
    ("doctor_blocked", doctor::blocked),
    ("policy_kill9", policies::reload::kill9),
    ("policy_shown", policies::reload::shown),
    ("explain_comes_true", explain::comes_true),
    ("explain_without_daemon", explain::without_daemon),
    ("explain_sockets", explain::sockets),
    ("events_told", events::told),
    ("events_stalled", events::stalled),
    ("events_watched", events::watched),
    ("hooks_environment", hooks::environment),
    ("hooks_in_nobodys_way", hooks::in_nobodys_way),
    ("spoofed_sources", spoof::refused),
    ("abuse_strangers", abuse::strangers),
    ("abuse_crowd", abuse::crowd),
    ("abuse_members", abuse::members),
    ("abuse_full_disk", abuse::full_disk),
    ("metrics_scraped", metrics::scraped),
    ("metrics_rules", metrics::rules),
    ("metrics_reloaded", metrics::reloaded),
    ("metrics_abuse", metrics::abuse),
    ("metrics_page", metrics::page),
    ("metrics_large", metrics::large),
    ("coexist_wg_quick", coexist::wg_full_tunnel),
    ("coexist_tailscale", coexist::tailscale),
    ("coexist_docker", coexist::docker),
    ("coexist_ufw", coexist::ufw),
    ("pair_ha", pair_ha::pair),
    ("top_in_a_terminal", top::in_a_terminal),
    ("top_without_terminal", top::without_terminal),
    ("pages_are_clean", top::pages),
    ("clsact_attach", kernel::clsact_attach),
    ("attach_elsewhere", kernel::attach_elsewhere),
    ("clsact_ingress", kernel::clsact_ingress),
    ("bpftool_shows_fields", kernel::bpftool_shows_fields),
    ("bpftool_edits_take_effect", kernel::bpftool_edits_take_effect),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = &arguments[..]
        && flag == "--scenario"
    {
        return scenario(name);
    }
    let filters: Vec<_> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(*f));
    let chosen: Vec<_> = SCENARIOS.iter().filter(|(name, _)| chosen(name)).collect();
    if arguments.iter().any(|a| a == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    run_all(&chosen)
}

fn run_all(chosen: &[&Scenario]) -> ExitCode {
    let begun = Instant::now();
    println!("\nrunning {} tests", chosen.len());
    let (mut failed, mut took) = (Vec::new(), Vec::new());
    for (name, _) in chosen {
        let started = Instant::now();
        let done = in_child(name);
        took.push((started.elapsed().as_secs(), *name));
        match done {
            Ok(()) => println!("test {name} ... ok"),
            Err(e) => {
                println!("test {name} ... FAILED\n    {e:#}");
                failed.push((name, e));
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    took.sort_unstable();
    for (seconds, name) in took.iter().rev().take(SLOWEST) {
        println!("    {seconds:4} s: {name}");
    }
    // Once more at the end, where whoever sees only that finds it.
    failed
        .iter()
        .for_each(|(name, e)| println!("    failed: {name}: {e:#}"));
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        chosen.len() - failed.len(),
        failed.len(),
        SCENARIOS.len() - chosen.len(),
        begun.elapsed().as_secs_f64(),
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one scenario in a child; what it measures goes to our stdout, and why it failed is the
/// error.
fn in_child(name: &str) -> Result<()> {
    let cause = std::env::temp_dir().join(format!("uplink-lab-{}-{name}", std::process::id()));
    let done = run_child(name, &cause);
    let said = std::fs::read_to_string(&cause).unwrap_or_default();
    let _ = std::fs::remove_file(&cause);
    match said.is_empty() {
        true => done,
        false => done.context(said),
    }
}

fn run_child(name: &str, cause: &Path) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--scenario", name])
        .env(CAUSE, cause)
        .spawn()?;
    let id = child.id();
    let status = within(limit(name), &mut child);
    // A scenario that was killed leaves its cgroup; everything else goes with the process.
    let cleared = uplink_lab::cgroup::remove_of(id);
    let status = status?;
    anyhow::ensure!(status.success(), "{status}");
    cleared
}

fn within(limit: Duration, child: &mut Child) -> Result<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    anyhow::bail!("not done within {limit:?}, killed")
}

fn limit(name: &str) -> Duration {
    let own = LIMITS.iter().find(|(known, _)| *known == name);
    let longer = std::env::var(calm::STARVED).ok().and_then(|s| s.parse().ok());
    own.map_or(LIMIT, |(_, limit)| *limit) + Duration::from_secs(longer.unwrap_or(0))
}

fn scenario(name: &str) -> ExitCode {
    let Some((_, run)) = SCENARIOS.iter().find(|(known, _)| *known == name) else {
        eprintln!("no scenario {name}");
        exit(2);
    };
    let result = set_pdeathsig(Signal::SIGKILL)
        .map_err(Into::into)
        .and_then(|()| uplink_lab::isolate())
        .and_then(|()| run());
    let Err(e) = result else { return ExitCode::SUCCESS };
    if let Some(cause) = std::env::var_os(CAUSE) {
        let _ = std::fs::write(cause, format!("{e:#}"));
    }
    eprintln!(
        "    {name}: {e:#}\n    end of the daemon's log:\n{}",
        uplink_lab::daemon::log_tail()
    );
    ExitCode::FAILURE
}
