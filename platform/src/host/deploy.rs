//! Makes a release of an `app.toml`, and has it take the place of the one before.

use std::path::Path;
use std::sync::Arc;

use super::apps::Host;
use super::roll::Progress;
use super::spread;
use crate::app;
use crate::fault::{Context, Fault, Result};
use crate::state::{AppRow, Release};

/// Deploys an app; returns its new release.
///
/// # Errors
/// The text is refused, the app is being changed, its image cannot be built, or its VMs do not become healthy. What ran before goes on.
pub fn deploy(
    host: &Arc<Host>,
    text: &str,
    file: &str,
    folder: &Path,
    wait: bool,
    progress: Progress<'_>,
) -> Result<Release> {
    deploy_without(host, text, file, folder, (wait, &[]), progress)
}

/// Deploys an app, but not at these hosts, which get it later.
///
/// # Errors
/// As those of [`deploy`]; a host is not one of the app's.
pub fn deploy_without(
    host: &Arc<Host>,
    text: &str,
    file: &str,
    folder: &Path,
    (wait, without): (bool, &[String]),
    progress: Progress<'_>,
) -> Result<Release> {
    let spec = app::parse(text, file, folder)?;
    let parts = &host.parts;
    let name = spec.name.clone();
    let _occupied = host.occupy(&name, wait)?;
    host.check_owner(&name)?;
    host.check_hosts(&spec, without)?;
    host.check_names(&spec)?;
    parts.secrets.require(&name, &spec.secrets)?;
    if spread::count_here(host, &spec) != Some(0) {
        host.volumes().make(&name, &spec.volumes, None)?;
        host.volumes().other_sizes(&name, &spec.volumes, file)?.iter().for_each(|what| progress(what));
    }
    progress(&format!("Building the image from {}", spec.image.display()));
    let release = Arc::new(release(host, spec.clone(), file)?);
    install(host, &release, without, progress)
}

/// Has a release that was begun take the place of the one before.
fn install(host: &Host, release: &Arc<Release>, without: &[String], progress: Progress<'_>) -> Result<Release> {
    let (state, name) = (&host.parts.state, &release.app);
    let row = state.app(name)?;
    let before = state.active(name).ok();
    let rolled = take_over(host, &row, release, without, progress);
    if let Err(why) = &rolled {
        state.fail(release, &why.message)?;
    }
    if let Err(fault) = host.sweep() {
        progress(&format!("Images that nobody needs stay: {fault}"));
    }
    rolled.map_err(|why| {
        let goes_on = row.active.map_or("nothing of it runs".into(), |active| format!("release {active} goes on"));
        let next = why.next.unwrap_or_else(|| format!("`cell logs {name}` shows what it said."));
        Fault::new(format!("release {} of {name} failed, and {goes_on}: {}", release.number, why.message)).next(next)
    })?;
    // Hosts that had VMs of the release before, and have none now.
    let stays = spread::others(host, &release.spec);
    let mut gone = before.map(|before| spread::others(host, &before.spec)).unwrap_or_default();
    gone.retain(|(member, _)| stays.iter().all(|(other, _)| other.number != member.number));
    spread::end(host, &row, &gone.into_iter().map(|(member, _)| member).collect::<Vec<_>>(), progress);
    state.active(name)
}

fn take_over(
    host: &Host,
    row: &AppRow,
    release: &Arc<Release>,
    without: &[String],
    progress: Progress<'_>,
) -> Result<()> {
    let usual = || if release.spec.volumes.is_empty() { row.count } else { row.count.min(1) };
    let count = spread::count_here(host, &release.spec).or(release.spec.count).unwrap_or_else(usual);
    // Its address is there before its VMs are.
    host.fleet(row)?;
    // An app that is new reaches what allows it while it is checked.
    if let Err(fault) = host.set_rules() {
        progress(&format!("The rules stay as they are: {fault}"));
    }
    spread::roll_out(host, row, release, (count, without), &|| host.activate(release, count), progress)
}

/// Ends a deploy that is under way: its VMs end, and what ran before goes on, as after one that fails. Returns the release's number.
///
/// # Errors
/// None is under way; those of the database.
pub fn cancel(host: &Host, app: &str) -> Result<u32> {
    host.parts.state.app(app)?;
    // From here on, it does not take over any more.
    let number = host.parts.state.fail_deploying(app, "it was cancelled")?;
    let machines = host.fleet_named(app).map(|fleet| fleet.machines()).unwrap_or_default();
    std::thread::scope(|scope| {
        for machine in machines.iter().filter(|machine| machine.plan.release.number == number) {
            scope.spawn(|| machine.stop());
        }
    });
    Ok(number)
}

/// Makes a new release of what runs, with the secrets as they are now, but not at these hosts, which get it later.
///
/// # Errors
/// As those of [`deploy`].
pub fn redeploy(host: &Arc<Host>, app: &str, without: &[String], progress: Progress<'_>) -> Result<Release> {
    let _occupied = host.occupy(app, false)?;
    host.check_owner(app)?;
    let active = host.parts.state.active(app)?;
    host.parts.secrets.require(app, &active.spec.secrets)?;
    host.check_hosts(&active.spec, without)?;
    let release = host.begin(&active.spec, &active.image)?;
    install(host, &Arc::new(release), without, progress)
}

/// Builds the image, and begins a release with it.
fn release(host: &Host, spec: app::App, file: &str) -> Result<Release> {
    let parts = &host.parts;
    let new = parts.folder.image(&format!(".{}.new", spec.name));
    let _ = std::fs::remove_file(&new);
    let made = (parts.build)(&spec.image, &new).and_then(|image| {
        if spec.command.is_empty() && image.command.is_empty() {
            let next = format!("Say `command = [\"/bin/program\"]` in {file}.");
            return Err(Fault::new(format!("{file}: neither the app nor its image has a command")).next(next));
        }
        let _images = host.images();
        std::fs::rename(&new, parts.folder.image(&image.file)).context("the image")?;
        host.begin(&spec, &image)
    });
    made.inspect_err(|_| drop(std::fs::remove_file(&new)))
}
