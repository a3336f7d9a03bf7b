//! The rules of the network, and the public names: what follows from the active releases.

use vmcell::network::{Prefix, Rule};

use super::apps::Host;
use super::fleet::prefix;
use super::laptops;
use super::names::Names;
use crate::app::App;
use crate::fault::{Fault, Result};
use crate::state::{AppRow, Built, MOST_APPS, Release};

/// A network takes no more rules.
const MOST_RULES: usize = 1024;

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
        let (network, state) = (&self.parts.network, &self.parts.state);
        let mut rows = state.apps()?;
        if let Some(new) = instead.filter(|new| rows.iter().all(|row| row.name != new.name)) {
            // It has no number yet, and whether there is room does not depend on it.
            rows.push(AppRow { name: new.name.clone(), number: MOST_APPS, count: 0, active: None });
        }
        let laptops = self.parts.laptops.is_some() || !state.laptops()?.is_empty();
        let laptops = laptops.then(|| laptops::prefix(network)).transpose()?;
        let names_of = |from: Prefix| Rule::allow().from(from).to(network.subnet().dns().into()).udp(53..=53);
        let (mut rules, mut names) = (laptops.into_iter().map(names_of).collect::<Vec<_>>(), Names::new());
        for row in &rows {
            let (own, address) = (prefix(network, row.number)?, network.subnet().service(row.number));
            rules.push(Rule::allow().from(own).to(own));
            rules.push(Rule::allow().from(own).to(address.into()));
            let active = row.active.and_then(|_| state.active(&row.name).ok()).map(|release| release.spec);
            let Some(spec) = instead.filter(|new| new.name == row.name).cloned().or(active) else { continue };
            for service in &spec.services {
                let way = (row.name.clone(), service.port);
                names.extend(service.names.iter().map(|name| (name.clone(), way.clone())));
                let allowed = rows.iter().filter(|other| service.allow.contains(&other.name));
                for from in allowed.map(|other| prefix(network, other.number)).chain(laptops.map(Ok)) {
                    rules.push(Rule::allow().from(from?).to(address.into()).tcp(service.port..=service.port));
                }
            }
        }
        fits(&rules)?;
        Ok(Wanted { rules, names })
    }
}

fn fits(rules: &[Rule]) -> Result<()> {
    if rules.len() <= MOST_RULES {
        return Ok(());
    }
    let next = "Each app takes two, each service one for laptops and one for each app that it allows: destroy an app, or allow fewer.";
    Err(Fault::new(format!("the network would have {} rules, and {MOST_RULES} are allowed", rules.len())).next(next))
}
