//! Policy routing: brings our rules and routes to what the plan says, and takes them away.
//!
//! Only what carries our protocol number is ever touched. A route is replaced in place and a
//! new rule is there before the old one goes, so no packet meets a gap.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use tokio::time::{Instant, sleep};
use uplink_common::Family;

use self::socket::{Failure, Netlink};
use crate::plan::{Plan, Route, Rule};

mod diff;
pub(crate) mod socket;
pub(crate) mod wire;

pub use diff::Step;

/// How long an address may take to become usable (duplicate address detection).
const TENTATIVE: Duration = Duration::from_secs(3);
/// How often we look whether it is.
const TENTATIVE_POLL: Duration = Duration::from_millis(100);

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rules added or replaced.
    pub rules: Vec<Rule>,
    /// Routes added or replaced.
    pub routes: Vec<Route>,
    /// Routes and rules removed.
    pub removed: usize,
}

/// The kernel's routes and rules that carry our protocol.
#[derive(Clone, Debug)]
pub struct Routes {
    netlink: Netlink<Message>,
    protocol: u8,
}

/// What came of it so far.
#[derive(Default)]
struct Outcome {
    changes: Changes,
    failures: Vec<anyhow::Error>,
}

/// What is there, as the kernel says it and, where possible, as the plan says it.
struct Present<M, T> {
    raw: Vec<M>,
    plain: Vec<Option<T>>,
}

impl Routes {
    /// Opens a netlink socket in the present network namespace and spawns the task that
    /// serves it; needs a tokio runtime.
    pub fn new(protocol: u8) -> Result<Self> {
        let netlink = Netlink::open(NETLINK_ROUTE).context("opening a netlink socket")?;
        Ok(Self { netlink, protocol })
    }

    /// Brings rules and routes to `plan`: routes first, then rules, old ones last. One that
    /// fails does not keep the others from being tried; what it would have replaced stays.
    pub async fn apply(&self, plan: &Plan) -> Result<Changes> {
        let mut outcome = Outcome::default();
        let routes = self.routes().await?;
        let route_diff = diff::routes(&plan.routes, &routes.plain);
        let broken = self.add_routes(&route_diff.add, &mut outcome).await;
        let rules = self.rules().await?;
        let rule_diff = diff::rules(&plan.rules, &rules.plain);
        if self.add_rules(&rule_diff.add, &mut outcome).await {
            let old = rule_diff.remove.iter().map(|i| &rules.raw[*i]);
            self.remove_rules(old, &mut outcome).await;
        }
        let old = route_diff.remove.iter().map(|i| &routes.raw[*i]);
        let old = old.filter(|m| !broken.iter().any(|b| is_in(m, *b)));
        self.remove_routes(old, &mut outcome).await;
        outcome.finish()
    }

    /// What [`Self::apply`] would do, one by one; changes nothing.
    ///
    /// # Errors
    /// When the kernel does not say what is there.
    pub async fn steps(&self, plan: &Plan) -> Result<(Vec<Step<Rule>>, Vec<Step<Route>>)> {
        let (routes, rules) = (self.routes().await?, self.rules().await?);
        Ok((
            diff::rule_steps(&plan.rules, &rules.plain),
            diff::route_steps(&plan.routes, &routes.plain),
        ))
    }

    /// Takes away every rule and then every route that carries our protocol.
    pub async fn remove_all(&self) -> Result<usize> {
        let mut outcome = Outcome::default();
        let rules = self.rules().await?.raw;
        self.remove_rules(rules.iter(), &mut outcome).await;
        let routes = self.routes().await?.raw;
        self.remove_routes(routes.iter(), &mut outcome).await;
        Ok(outcome.finish()?.removed)
    }

    /// Returns the tables that lack something now. Routes that wait for an address come last.
    async fn add_routes(&self, routes: &[Route], outcome: &mut Outcome) -> Vec<(Family, u32)> {
        let (mut broken, mut early) = (Vec::new(), Vec::new());
        for route in routes {
            match self.add_route(route).await {
                Ok(()) => outcome.changes.routes.push(route.clone()),
                Err(failure) if self.is_too_early(route, &failure).await => early.push(route),
                Err(failure) => broken.push((route, failure)),
            }
        }
        let deadline = Instant::now() + TENTATIVE;
        for route in early {
            match self.add_route_by(route, deadline).await {
                Ok(()) => outcome.changes.routes.push(route.clone()),
                Err(failure) => broken.push((route, failure)),
            }
        }
        let mut tables = Vec::new();
        for (route, failure) in broken {
            tables.push((route.family, route.table));
            outcome
                .failures
                .push(anyhow::Error::new(failure).context(format!("`{route}`")));
        }
        tables
    }

    /// Returns whether all of them are there.
    async fn add_rules(&self, rules: &[Rule], outcome: &mut Outcome) -> bool {
        let before = outcome.failures.len();
        for rule in rules {
            match self.add_rule(rule).await {
                Ok(added) => outcome.changes.rules.extend(added.then(|| rule.clone())),
                Err(error) => outcome.failures.push(error),
            }
        }
        outcome.failures.len() == before
    }

    async fn add_route(&self, route: &Route) -> Result<(), Failure> {
        let message = Message::NewRoute(wire::route_message(route, self.protocol));
        self.netlink
            .execute(message, NLM_F_CREATE | NLM_F_REPLACE)
            .await?;
        tracing::debug!(%route, "added");
        Ok(())
    }

    /// Tries again while the source is tentative.
    async fn add_route_by(&self, route: &Route, deadline: Instant) -> Result<(), Failure> {
        loop {
            let Err(failure) = self.add_route(route).await else {
                return Ok(());
            };
            if Instant::now() > deadline || !self.is_too_early(route, &failure).await {
                return Err(failure);
            }
            sleep(TENTATIVE_POLL).await;
        }
    }

    /// Whether the kernel refused `route` only because its source is still tentative.
    async fn is_too_early(&self, route: &Route, failure: &Failure) -> bool {
        let Some(source @ IpAddr::V6(_)) = route.source else {
            return false;
        };
        if failure.errno != libc::EINVAL {
            return false;
        }
        let mut request = AddressMessage::default();
        request.header.family = wire::address_family(Family::V6);
        let found = self.netlink.dump(Message::GetAddress(request)).await;
        found.unwrap_or_default().iter().any(|message| match message {
            Message::NewAddress(m) => is_tentative(m, source),
            _ => false,
        })
    }

    /// `false` if somebody else's rule says the same already.
    async fn add_rule(&self, rule: &Rule) -> Result<bool> {
        let message = Message::NewRule(wire::rule_message(rule, self.protocol));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        match self.netlink.execute(message, flags).await {
            Ok(()) => {
                tracing::debug!(%rule, "added");
                Ok(true)
            }
            Err(failure) if failure.errno == libc::EEXIST => Ok(false),
            Err(failure) => Err(failure).with_context(|| format!("`{rule}`")),
        }
    }

    async fn remove_rules(&self, old: impl Iterator<Item = &RuleMessage>, outcome: &mut Outcome) {
        for message in old {
            let request = Message::DelRule(message.clone());
            let done = self.netlink.execute(request, 0).await;
            outcome.removed(done, || match wire::rule(message) {
                Some(rule) => format!("`{rule}`"),
                None => format!("a rule with protocol {}", self.protocol),
            });
        }
    }

    async fn remove_routes(&self, old: impl Iterator<Item = &RouteMessage>, outcome: &mut Outcome) {
        for message in old {
            let request = Message::DelRoute(wire::route_to_delete(message.clone()));
            let done = self.netlink.execute(request, 0).await;
            outcome.removed(done, || match wire::route(message) {
                Some(route) => format!("`{route}`"),
                None => format!("a route of table {}", wire::table(message)),
            });
        }
    }

    async fn routes(&self) -> Result<Present<RouteMessage, Route>> {
        let mut raw = Vec::new();
        for family in Family::ALL {
            let mut request = RouteMessage::default();
            request.header.address_family = wire::address_family(family);
            request.header.protocol = RouteProtocol::from(self.protocol);
            let dump = self.netlink.dump(Message::GetRoute(request)).await;
            for message in tolerate(dump).context("reading routes")? {
                if let Message::NewRoute(m) = message
                    && u8::from(m.header.protocol) == self.protocol
                    // A kernel without IPv6 answers with the routes of IPv4.
                    && m.header.address_family == wire::address_family(family)
                {
                    raw.push(m);
                }
            }
        }
        let plain = raw.iter().map(wire::route).collect();
        Ok(Present { raw, plain })
    }

    async fn rules(&self) -> Result<Present<RuleMessage, Rule>> {
        let mut raw = Vec::new();
        for family in Family::ALL {
            let mut request = RuleMessage::default();
            request.header.family = wire::address_family(family);
            let dump = self.netlink.dump(Message::GetRule(request)).await;
            for message in tolerate(dump).context("reading rules")? {
                if let Message::NewRule(m) = message
                    && wire::rule_protocol(&m) == Some(self.protocol)
                {
                    raw.push(m);
                }
            }
        }
        let plain = raw.iter().map(wire::rule).collect();
        Ok(Present { raw, plain })
    }
}

impl Outcome {
    /// What was gone already is as good as removed, but nothing to boast of.
    fn removed(&mut self, done: Result<(), Failure>, what: impl FnOnce() -> String) {
        match done {
            Ok(()) => {
                tracing::debug!(what = what(), "removed");
                self.changes.removed += 1;
            }
            Err(failure) if [libc::ESRCH, libc::ENOENT, libc::ENODEV].contains(&failure.errno) => {}
            Err(failure) => {
                let context = format!("undoing {}", what());
                self.failures.push(anyhow::Error::new(failure).context(context));
            }
        }
    }

    fn finish(self) -> Result<Changes> {
        if self.failures.is_empty() {
            return Ok(self.changes);
        }
        let texts: Vec<String> = self.failures.iter().map(|f| format!("{f:#}")).collect();
        bail!("{}", texts.join("; "))
    }
}

/// A family that the kernel does not know has nothing in it.
pub(crate) fn tolerate(dump: Result<Vec<Message>, Failure>) -> Result<Vec<Message>, Failure> {
    match dump {
        Err(failure) if [libc::EAFNOSUPPORT, libc::EOPNOTSUPP].contains(&failure.errno) => Ok(Vec::new()),
        other => other,
    }
}

fn is_in(message: &RouteMessage, (family, table): (Family, u32)) -> bool {
    message.header.address_family == wire::address_family(family) && wire::table(message) == table
}

fn is_tentative(message: &AddressMessage, source: IpAddr) -> bool {
    let (mut same, mut tentative) = (false, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(address) => same |= *address == source,
            AddressAttribute::Flags(flags) => {
                tentative =
                    flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Dadfailed);
            }
            _ => {}
        }
    }
    same && tentative
}
