//! The rules of the network, and the public names: what follows from the active releases.

use vmcell::network::{Network, Prefix, Rule};

use super::apps::Host;
use super::beat::ServiceTold;
use super::elsewhere::Known;
use super::fleet::prefix;
use super::laptops;
use super::names::Names;
use crate::app::App;
use crate::fault::{Fault, Result};
use crate::state::{Built, Release};

/// A network takes no more rules.
const MOST_RULES: usize = 1024;
/// Nobody wants to know how many more there are.
const FAR_TOO_MANY: usize = 64 * MOST_RULES;

struct Wanted {
    rules: Vec<Rule>,
    names: Names,
}

impl Host {
    /// Makes the public names, and the rules of the network, those of the active releases: an app reaches itself, and what others allow it; laptops reach services.
    ///
    /// # Errors
    /// Those of the database and of the network. Nothing has changed then.
    pub fn set_rules(&self) -> Result<()> {
        let _alone = self.active();
        let wanted = self.wanted(None)?;
        self.parts.network.set_rules(&wanted.rules)?;
        self.front.set(wanted.names);
        Ok(())
    }

    /// Begins a release, if the network has room for what it allows.
    ///
    /// # Errors
    /// It has not; those of the database.
    pub(super) fn begin(&self, spec: &App, image: &Built) -> Result<Release> {
        let _alone = self.active();
        self.wanted(Some(spec))?;
        self.parts.state.begin_release(spec, image)
    }

    /// Makes a release the active one, with its rules and names. All of it is done, or none.
    ///
    /// # Errors
    /// Another app has one of its names; those of the database and of the network.
    pub(super) fn activate(&self, release: &Release, count: u32) -> Result<()> {
        let _alone = self.active();
        self.check_names(&release.spec)?;
        let (before, wanted) = (self.wanted(None), self.wanted(Some(&release.spec))?);
        self.parts.network.set_rules(&wanted.rules)?;
        if let Err(why) = self.parts.state.activate(release, count) {
            // They were in force a moment ago, so they are not refused.
            let _ = before.map(|before| self.parts.network.set_rules(&before.rules));
            return Err(why);
        }
        self.front.set(wanted.names);
        Ok(())
    }

    /// What follows from the active releases, with this app instead of its active release.
    fn wanted(&self, instead: Option<&App>) -> Result<Wanted> {
        let (network, state, own) = (&self.parts.network, &self.parts.state, self.number());
        let known = self.known(instead)?;
        let laptops = self.parts.laptops.is_some() || !state.laptops()?.is_empty();
        let laptops = laptops.then(|| laptops::prefix_of(network.subnet(), own)).transpose()?;
        let others = self.parts.mesh.as_ref().is_some_and(|mesh| !mesh.others().is_empty());
        let sides = Sides { network, own, known: &known, laptops, others };
        let (mut rules, mut names) = (sides.of_laptops(), Names::new());
        for app in &known {
            sides.of_app(app, &mut rules)?;
            for service in &app.services {
                let way = (app.name.clone(), service.port);
                // Those of this host's own apps come first, and stay.
                service.names.iter().for_each(|name| _ = names.entry(name.clone()).or_insert_with(|| way.clone()));
                sides.of_service(app, service, &mut rules)?;
                if rules.len() > FAR_TOO_MANY {
                    // Other hosts may tell of anything.
                    fits(&rules)?;
                }
            }
        }
        fits(&rules)?;
        Ok(Wanted { rules, names })
    }
}

/// Who may be at both ends of a flow that this host sees.
struct Sides<'a> {
    network: &'a Network,
    /// The number of this host.
    own: u16,
    known: &'a [Known],
    /// Those that come in by this host.
    laptops: Option<Prefix>,
    /// There are other hosts.
    others: bool,
}

impl Sides<'_> {
    fn prefix(&self, host: u16, app: &Known) -> Result<Prefix> {
        prefix(self.network, host, app.number)
    }

    /// The other hosts that may have VMs of an app.
    fn hosts<'a>(&'a self, app: &'a Known) -> impl Iterator<Item = u16> + 'a {
        app.hosts.iter().copied().filter(|host| *host != self.own)
    }

    fn of_laptops(&self) -> Vec<Rule> {
        let subnet = self.network.subnet();
        let asks = |from: Prefix| Rule::allow().from(from).to(subnet.dns().into()).udp(53..=53);
        // They reach machines of other hosts by their services alone, and so it is with the machines here.
        let no_machine = |from: Prefix| Rule::deny().from(from).to(subnet.host_prefix(self.own));
        let denied = self.laptops.filter(|_| self.others).map(no_machine);
        self.laptops.map(asks).into_iter().chain(denied).collect()
    }

    /// An app reaches itself, at all of its hosts.
    fn of_app(&self, app: &Known, rules: &mut Vec<Rule>) -> Result<()> {
        if !app.hosts.contains(&self.own) {
            return Ok(());
        }
        let own = self.prefix(self.own, app)?;
        rules.push(Rule::allow().from(own).to(own));
        rules.push(Rule::allow().from(own).to(self.network.subnet().service(app.number).into()));
        for host in self.hosts(app) {
            let there = self.prefix(host, app)?;
            rules.push(Rule::allow().from(own).to(there));
            rules.push(Rule::allow().from(there).to(own));
        }
        Ok(())
    }

    /// A service is reached by its address from here, and what has come from other hosts by theirs reaches the VMs.
    fn of_service(&self, app: &Known, service: &ServiceTold, rules: &mut Vec<Rule>) -> Result<()> {
        let address = self.network.subnet().service(app.number);
        let is_here = app.hosts.contains(&self.own);
        let mut allow =
            |from: Prefix, to: Prefix| rules.push(Rule::allow().from(from).to(to).tcp(service.port..=service.port));
        for other in self.known.iter().filter(|other| service.allow.contains(&other.name)) {
            if other.hosts.contains(&self.own) {
                allow(self.prefix(self.own, other)?, address.into());
            }
            for host in self.hosts(other).filter(|_| is_here) {
                allow(self.prefix(host, other)?, self.prefix(self.own, app)?);
            }
        }
        self.laptops.iter().for_each(|laptops| allow(*laptops, address.into()));
        if is_here && self.others {
            allow(laptops::prefix(self.network.subnet()), self.prefix(self.own, app)?);
        }
        Ok(())
    }
}

fn fits(rules: &[Rule]) -> Result<()> {
    if rules.len() <= MOST_RULES {
        return Ok(());
    }
    let next = "Each app takes two, each service one for laptops and one for each app that it allows, and each other host adds as many: destroy an app, or allow fewer.";
    Err(Fault::new(format!("the network would have {} rules, and {MOST_RULES} are allowed", rules.len())).next(next))
}
