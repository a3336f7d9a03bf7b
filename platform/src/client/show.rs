//! Results as text.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What runs.
pub fn status(apps: &Value) -> String {
    let mut shown = String::new();
    for app in each(apps) {
        let release = app["release"].as_u64().map_or("no release".into(), |number| format!("release {number}"));
        let vms = if app["count"] == 1 { "VM" } else { "VMs" };
        let _ = writeln!(
            shown,
            "{}  {release}, {} {vms}, {} at {}",
            text(app, "app"),
            app["count"],
            text(app, "name"),
            text(app, "address")
        );
        if app["release"].is_null() {
            let _ =
                writeln!(shown, "  no release is active: `cell releases {}` lists what was tried", text(app, "app"));
        }
        for service in each(&app["services"]) {
            let names: Vec<&str> = each(&service["names"]).filter_map(Value::as_str).collect();
            let reach = if names.is_empty() { "private".into() } else { format!("public as {}", names.join(", ")) };
            let _ = writeln!(shown, "  port {}: {reach}", service["port"]);
        }
        for trouble in each(&app["troubles"]) {
            let what = if trouble["host"].is_string() { "host" } else { "volume" };
            let _ = writeln!(shown, "  {what} {}: {}", text(trouble, what), text(trouble, "trouble"));
        }
        each(&app["certificates"]).for_each(|certificate| show_certificate(&mut shown, certificate));
        for vm in each(&app["vms"]) {
            let why = vm["why"].as_str().map_or(String::new(), |why| format!(": {why}"));
            let since = humantime::format_duration(Duration::from_secs(vm["seconds"].as_u64().unwrap_or(0)));
            let _ = writeln!(
                shown,
                "  VM {}{}  release {}, {} for {since}, restarted {} times, {}{why}",
                vm["vm"],
                vm["host"].as_str().map_or(String::new(), |host| format!(" at {host}")),
                vm["release"],
                text(vm, "phase"),
                vm["restarts"],
                text(vm, "address")
            );
        }
    }
    if shown.is_empty() { "No apps yet: `cell deploy app.toml` makes one.".into() } else { shown }
}

fn show_certificate(shown: &mut String, certificate: &Value) {
    let ends = certificate["ends"].as_u64().and_then(|ends| UNIX_EPOCH.checked_add(Duration::from_secs(ends)));
    let ends = ends.map_or("none yet".into(), |ends| format!("until {}", humantime::format_rfc3339_seconds(ends)));
    let trouble =
        certificate["trouble"].as_str().map_or(String::new(), |why| format!("; the last order failed: {why}"));
    let _ = writeln!(shown, "  certificate of {}: {ends}{trouble}", text(certificate, "name"));
}

/// A line of a log.
pub fn log(vm: u32, host: Option<String>, line: &str, json: bool) -> String {
    match host {
        Some(host) if json => serde_json::json!({ "vm": vm, "host": host, "line": line }).to_string(),
        None if json => serde_json::json!({ "vm": vm, "line": line }).to_string(),
        Some(host) => format!("{vm} at {host} | {line}"),
        None => format!("{vm} | {line}"),
    }
}

/// The releases of an app.
pub fn releases(releases: &Value) -> String {
    let mut shown = String::new();
    for release in each(releases) {
        let created =
            UNIX_EPOCH.checked_add(Duration::from_secs(release["created"].as_u64().unwrap_or(0))).unwrap_or(UNIX_EPOCH);
        let why = release["reason"].as_str().map_or(String::new(), |why| format!(": {why}"));
        let when = humantime::format_rfc3339_seconds(created);
        let _ = writeln!(shown, "{}  {when}  {}{why}", release["release"], text(release, "status"));
    }
    shown
}

/// The secrets of an app.
pub fn secrets(secrets: &Value) -> String {
    let line = |secret| format!("{}  version {}  {}", text(secret, "name"), secret["version"], text(secret, "digest"));
    let lines: Vec<String> = each(secrets).map(line).collect();
    if lines.is_empty() { "No secrets.".into() } else { lines.join("\n") }
}

/// The volumes of an app.
pub fn volumes(volumes: &Value) -> String {
    let mut shown = String::new();
    for volume in each(volumes) {
        let mib = |name: &str| volume[name].as_u64().unwrap_or(0) >> 20;
        let _ = writeln!(shown, "{}  {} MiB, takes {} MiB", text(volume, "name"), mib("size"), mib("used"));
        for snapshot in each(&volume["snapshots"]) {
            let created = Duration::from_secs(snapshot["created"].as_u64().unwrap_or(0));
            let created = UNIX_EPOCH.checked_add(created).unwrap_or(UNIX_EPOCH);
            let (when, by) = (humantime::format_rfc3339_seconds(created), text(snapshot, "made"));
            let _ = writeln!(shown, "  snapshot {}  {when}  by {by}", snapshot["snapshot"]);
        }
        let copied = &volume["copy_of"];
        if let Some(from) = copied["host"].as_str() {
            let received = Duration::from_secs(copied["received"].as_u64().unwrap_or(0));
            let received = UNIX_EPOCH.checked_add(received).unwrap_or(UNIX_EPOCH);
            let _ = writeln!(shown, "  copy of {from}, as of {}", humantime::format_rfc3339_seconds(received));
        }
        if let Some(source) = volume["follows"].as_str() {
            let _ = writeln!(shown, "  follows the volume of {source}");
        }
        for copy in each(&volume["copies"]) {
            let _ = writeln!(shown, "  copy at {}, has snapshot {}", text(copy, "host"), copy["snapshot"]);
        }
        if let Some(why) = volume["trouble"].as_str() {
            let _ = writeln!(shown, "  trouble: {why}");
        }
    }
    if shown.is_empty() { "No volumes.".into() } else { shown }
}

/// Who may come into the network.
pub fn laptops(laptops: &Value) -> String {
    let line =
        |laptop| format!("{}  {}  {}", text(laptop, "name"), text(laptop, "address"), text(laptop, "public_key"));
    let lines: Vec<String> = each(laptops).map(line).collect();
    if lines.is_empty() { "No laptops.".into() } else { lines.join("\n") }
}

/// The hosts.
pub fn hosts(hosts: &Value) -> String {
    let mut shown = String::new();
    for host in each(hosts) {
        let since = host["heard"].as_u64().map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
        let state = match (host["own"].as_bool(), host["alive"].as_bool(), since) {
            (Some(true), ..) => "this host".into(),
            (_, Some(true), _) => "alive".into(),
            (_, _, Some(since)) => format!("dead, last heard {since} ago"),
            (_, _, None) => "dead, not heard yet".into(),
        };
        let _ = writeln!(shown, "{}  {}  {}  {state}", host["host"], text(host, "name"), text(host, "endpoint"));
    }
    shown
}
