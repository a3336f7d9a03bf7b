//! Answers one command.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::kept::kept;
use super::logs::logs;
use super::relay::relay;
use crate::api::{Answer, Request, receive, send};
use crate::fault::{Context, Fault, Result};
use crate::host::{self, Host, Reached};
use crate::state::AppRow;

/// A client has so long to say what it wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a command from a client and answers it.
pub fn answer(host: &Arc<Host>, stream: &UnixStream) {
    let told = match read(stream).and_then(|request| run(host, stream, request)) {
        Ok(Some(value)) => Answer::Done(value),
        Ok(None) => return,
        Err(fault) => Answer::Refused(fault),
    };
    // The client may be gone.
    let _ = send(&mut &*stream, &told);
}

fn read(stream: &UnixStream) -> Result<Request> {
    stream.set_read_timeout(Some(PATIENCE)).context("a client")?;
    stream.set_write_timeout(Some(PATIENCE)).context("a client")?;
    // One byte at a time, so that what follows the line stays in the socket.
    receive(&mut BufReader::with_capacity(1, stream))?.ok_or_else(|| Fault::new("no command came"))
}

/// The result; none if the bytes that were relayed are all of it.
fn run(host: &Arc<Host>, stream: &UnixStream, request: Request) -> Result<Option<Value>> {
    let told = Mutex::new(stream);
    let progress = |what: &str| {
        let mut stream = *told.lock().unwrap_or_else(PoisonError::into_inner);
        // A client that is gone does not end what it has begun.
        let _ = send(&mut stream, &Answer::Progress(what.to_owned()));
    };
    let done = |app: &str| Ok(Some(json!({ "app": app })));
    match request {
        Request::Deploy { text, file, folder, wait, without } => {
            let release = host::deploy_without(host, &text, &file, &folder, (wait, &without), &progress)?;
            Ok(Some(json!({ "app": release.app, "release": release.number })))
        }
        Request::Status { app } => status(host, app.as_deref()).map(Some),
        Request::Releases { app } => releases(host, &app).map(Some),
        Request::Logs { app, follow } => logs(host, &told, &app, follow).map(|()| (!follow).then_some(Value::Null)),
        Request::Exec { app, vm, host: at } => open(stream, host.exec(&app, vm, at.as_deref())?),
        Request::Connect { app, port } => open(stream, host.proxy(&app, port)?),
        Request::Scale { app, count } => host::scale(host, &app, count, &progress).and_then(|()| done(&app)),
        Request::Restart { app, without } => host::restart(host, &app, &without, &progress).and_then(|()| done(&app)),
        Request::Cancel { app } => Ok(Some(json!({ "app": app, "cancelled": host::cancel(host, &app)? }))),
        Request::Destroy { app } => host::destroy(host, &app, &progress).and_then(|()| done(&app)),
        other => kept(host, other, &progress).map(Some),
    }
}

fn open(stream: &UnixStream, reached: Reached) -> Result<Option<Value>> {
    send(&mut &*stream, &Answer::Stream)?;
    stream.set_read_timeout(None).context("a client")?;
    stream.set_write_timeout(None).context("a client")?;
    relay(stream, &reached.stream);
    Ok(None)
}

fn releases(host: &Host, app: &str) -> Result<Value> {
    host.parts.state.app(app)?;
    let shown = host.parts.state.releases(Some(app))?.into_iter().map(|release| {
        json!({ "release": release.number, "created": release.created, "status": release.status, "reason": release.reason,
                "image": release.image.file })
    });
    Ok(shown.collect())
}

/// What runs, of one app or of all.
///
/// # Errors
/// There is no such app; those of the database.
pub(crate) fn status(host: &Host, app: Option<&str>) -> Result<Value> {
    let state = &host.parts.state;
    let rows = app.map_or_else(|| state.apps(), |app| Ok(vec![state.app(app)?]))?;
    rows.iter().map(|row| status_of(host, row)).collect()
}

fn status_of(host: &Host, row: &AppRow) -> Result<Value> {
    // Of what is there alone: to look at an app gives it no address.
    let machines = host.fleet_named(&row.name).map(|fleet| fleet.machines()).unwrap_or_default();
    let own = host.own_name();
    let here = machines.iter().map(|machine| (own.clone(), machine.report()));
    let there = host.reports_elsewhere(row).into_iter().map(|(name, report)| (Some(name), report));
    let vms = here.chain(there).map(|(name, report)| {
        let mut vm = serde_json::to_value(report).context("a VM")?;
        if let (Some(name), Value::Object(fields)) = (name, &mut vm) {
            fields.insert("host".to_owned(), name.into());
        }
        Ok(vm)
    });
    let vms: Vec<Value> = vms.collect::<Result<_>>()?;
    let address = host.parts.network.subnet().service(row.number).to_string();
    let active = host.parts.state.active(&row.name).ok();
    let services: Vec<Value> = active
        .iter()
        .flat_map(|release| &release.spec.services)
        .map(|service| json!({ "port": service.port, "names": service.names, "allow": service.allow }))
        .collect();
    Ok(json!({ "app": row.name, "release": row.active, "count": row.count, "address": address,
               "name": format!("{}.internal", row.name), "services": services, "vms": vms,
               "certificates": host.certificates(&row.name), "troubles": troubles(host, &row.name)? }))
}

/// What does not work of what the clock does to an app's volumes, and of what other hosts have missed.
fn troubles(host: &Host, app: &str) -> Result<Value> {
    let volumes = host.parts.state.volumes(app)?.into_iter();
    let told = volumes.filter_map(|row| host.trouble(app, &row.name).map(|why| (row.name, why)));
    let volumes = told.map(|(volume, trouble)| json!({ "volume": volume, "trouble": trouble }));
    let hosts = host.behind(app).into_iter().map(|(host, trouble)| json!({ "host": host, "trouble": trouble }));
    Ok(volumes.chain(hosts).collect())
}
