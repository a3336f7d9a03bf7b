//! Answers commands about what apps keep, secrets and volumes, and about who takes part, laptops and hosts.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::Request;
use crate::app::is_name;
use crate::fault::{Context, Fault, Result};
use crate::host::{self, Host};

/// The result of a command.
pub fn kept(host: &Arc<Host>, request: Request, progress: &(dyn Fn(&str) + Sync)) -> Result<Value> {
    let secrets = &host.parts.secrets;
    match request {
        Request::SetSecret { app, name, value, stage, without } => {
            secrets.set(&app, &name, &value.0)?;
            if !stage && wants(host, &app, &name) {
                let release = host::redeploy(host, &app, &without, progress)?;
                return Ok(json!({ "app": app, "secret": name, "release": release.number }));
            }
            Ok(json!({ "app": app, "secret": name }))
        }
        Request::UnsetSecret { app, name } => {
            if wants(host, &app, &name) {
                let next = "Deploy a release that does not list it first.";
                return Err(Fault::new(format!("the active release of {app} has the secret {name}")).next(next));
            }
            secrets.unset(&app, &name).map(|()| json!({ "app": app, "secret": name }))
        }
        Request::AddLaptop { name } => {
            let config = laptops(host)?.create(&host.parts.network, &host.parts.state, &name)?;
            host.set_rules()?;
            Ok(json!({ "laptop": name, "config": config }))
        }
        Request::RemoveLaptop { name } => {
            laptops(host)?.remove(&host.parts.state, &name)?;
            host.set_rules()?;
            Ok(json!({ "laptop": name }))
        }
        Request::Laptops => {
            serde_json::to_value(host::laptops(&host.parts.network, &host.parts.state)?).context("laptops")
        }
        Request::Invite => Ok(json!({ "token": host.mesh()?.invite()? })),
        Request::Hosts => serde_json::to_value(host.mesh()?.told()).context("hosts"),
        Request::RemoveHost { name } => host.remove_host(&name).map(|()| json!({ "removed": name })),
        Request::Secrets { app } => serde_json::to_value(secrets.list(&app)?).context("secrets"),
        Request::Volumes { app } => {
            let mut told = host.volumes().list(&app)?;
            told.iter_mut().for_each(|volume| volume.trouble = host.trouble(&app, &volume.name));
            serde_json::to_value(told).context("volumes")
        }
        Request::Snapshot { app, volume } => {
            Ok(json!({ "volume": volume, "snapshot": host::snapshot(host, &app, &volume)? }))
        }
        Request::Promote { app, volume } => {
            let (generation, snapshot) = host::promote(host, &app, &volume)?;
            Ok(json!({ "volume": volume, "generation": generation, "snapshot": snapshot }))
        }
        Request::DestroyVolume { app, volume } => {
            host::destroy_volume(host, &app, &volume)?;
            Ok(json!({ "app": app, "destroyed": volume }))
        }
        Request::RemoveSnapshot { app, volume, snapshot } => {
            host::remove(host, &app, &volume, snapshot)?;
            Ok(json!({ "volume": volume, "removed": snapshot }))
        }
        Request::Restore { app, volume, snapshot } => {
            let kept = host::restore(host, &app, &volume, snapshot, progress)?;
            Ok(json!({ "volume": volume, "restored": snapshot, "snapshot": kept }))
        }
        Request::Fork { app, volume, snapshot, to_app, to_volume } => {
            if !is_name(&to_app) || !is_name(&to_volume) || to_volume.len() > 20 {
                let allowed = "allowed are lower-case letters, digits and hyphens inside";
                return Err(Fault::new(format!("{to_app} {to_volume}: {allowed}")));
            }
            host::fork(host, (&app, &volume), snapshot, (&to_app, &to_volume))?;
            Ok(json!({ "app": to_app, "volume": to_volume }))
        }
        Request::Extend { app, volume, size } => {
            host::extend(host, &app, &volume, size)?;
            Ok(json!({ "volume": volume, "size": size }))
        }
        other => Err(Fault::new(format!("{other:?} is not about what apps keep"))),
    }
}

fn laptops(host: &Host) -> Result<&host::Laptops> {
    let none =
        || Fault::new("there is no way in for laptops").next("Start `cell serve` with --wireguard ADDRESS:PORT.");
    host.parts.laptops.as_ref().ok_or_else(none)
}

/// Does what runs have this secret?
fn wants(host: &Host, app: &str, name: &str) -> bool {
    host.parts.state.active(app).is_ok_and(|release| release.spec.secrets.iter().any(|secret| secret == name))
}
