//! Postgres as the example deploys it, while the host program is killed, as it was at a snapshot, and as a copy at another host.

#[path = "support/cell.rs"]
mod cell;
#[path = "../../tests/support/mod.rs"]
mod library;
#[path = "support/postgres.rs"]
mod postgres;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use cell::{Cell, Killed, serve, two_hosts};
use library::is_long;
use postgres::{benched, deploy, fill, found, sql, told, until_answers};

/// Kills `cell serve` while transactions come, and starts it again; returns how many are there then.
fn killed(cell: &mut Cell, address: &str, before: u64) -> u64 {
    let bench = benched(address, 100);
    let began = Instant::now();
    while found(address) < before + 3 {
        assert!(began.elapsed() < cell::LONG);
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(RandomState::new().hash_one(before) % 2000));
    assert_eq!(cell.end("KILL"), None);
    let said = String::from_utf8(bench.wait_with_output().unwrap().stdout).unwrap();
    cell.server = serve(cell.folder.path(), &[]);
    until_answers(cell, address);
    let (told, there) = (told(&said), found(address) - before);
    // One of each client may have been committed without anybody being told.
    assert!(told > 0 && (told..=told + 2).contains(&there), "{told} were told of, {there} are there:\n{said}");
    before + there
}

/// The database, where it listens, and what pgbench needs in it.
fn benched_database() -> (Cell, Killed, String) {
    let cell = Cell::new();
    deploy(&cell, "db", "size = \"256M\"\nsnapshots = { every = \"10s\", keep = \"10s\" }", "");
    let (proxy, address) = cell.proxy_to("db", 5432);
    fill(&address);
    (cell, proxy, address)
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
fn a_database_has_each_transaction_that_it_told_of_after_the_host_program_is_killed() {
    let (mut cell, _proxy, address) = benched_database();
    let mut there = 0;
    for _ in 0..if is_long() { 10 } else { 1 } {
        there = killed(&mut cell, &address, there);
    }
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test"]
fn a_database_is_restored_to_a_snapshot_while_the_clock_takes_and_removes_others() {
    let (cell, _proxy, address) = benched_database();
    let said = String::from_utf8(benched(&address, 5).wait_with_output().unwrap().stdout).unwrap();
    let there = found(&address);
    assert_eq!(there, told(&said), "{said}");
    let taken = cell.json(&["volumes", "snapshot", "db", "data"])["snapshot"].clone();
    sql(&address, "drop table pgbench_tellers").unwrap();
    // The clock has taken some meanwhile, while transactions came, and has removed all but the last ones.
    cell.until("a snapshot by the clock that is gone", |cell| {
        let told = cell.json(&["volumes", "list", "db"])[0].clone();
        assert!(told["trouble"].is_null(), "{told}");
        let by = |who: &str| told["snapshots"].as_array().unwrap().iter().filter(|one| one["made"] == who).count();
        (by("person"), by("clock")) == (1, 1) && !cell.folder.path().join("state/volumes/db.data.1.vol").exists()
    });
    cell.done(&["volumes", "restore", "db", "data", &taken.to_string()]);
    until_answers(&cell, &address);
    assert_eq!(found(&address), there);
}

/// How many transactions a copy has; what is asked of it meanwhile may come to a VM that ends.
fn copied(address: &str) -> Option<u64> {
    sql(address, "select count(*) from pgbench_history").ok()?.parse().ok()
}

#[test]
#[ignore = "needs a KVM that runs Linux: cargo xtask test --long"]
#[allow(clippy::print_stdout, reason = "says what was measured")]
fn a_database_is_read_at_another_host_and_goes_on_there_with_all_that_it_told_of_before_the_last_copy() {
    let seconds = if is_long() { 20 } else { 3 };
    let (mut alpha, beta, _) = two_hosts();
    deploy(&alpha, "db", "size = \"256M\"\nreplicate = { to = \"beta\", every = \"2s\" }", "");
    let (_proxy, address) = alpha.proxy_to("db", 5432);
    fill(&address);
    // Otherwise each copy begins by doing all of that once more, which takes a minute on an emulated host.
    sql(&address, "checkpoint").unwrap();
    alpha.until_copied("db", || drop(sql(&address, "create table if not exists marks(); drop table marks").unwrap()));
    deploy(&beta, "reads", "replica_of = \"db\"", "-c default_transaction_read_only=on");
    let (_proxy_there, there) = beta.proxy_to("reads", 5432);
    benched(&address, seconds).wait().unwrap();
    let (began, before) = (Instant::now(), found(&address));
    beta.until("what was written", |_| copied(&there) == Some(before));
    println!("{before} transactions were read at the other host after {:.1?}", began.elapsed());
    let refused = sql(&there, "delete from pgbench_history").unwrap_err();
    assert!(refused.contains("in a read-only transaction"), "{refused}");
    beta.done(&["destroy", "reads", "--yes", "reads"]);

    let bench = benched(&address, 250);
    std::thread::sleep(Duration::from_secs(seconds));
    let kept = found(&address);
    alpha.until_copied("db", || ());
    std::thread::sleep(Duration::from_millis(RandomState::new().hash_one(before) % 2000));
    assert_eq!(alpha.end("KILL"), None);
    let last = before + told(&String::from_utf8(bench.wait_with_output().unwrap().stdout).unwrap());
    beta.done(&["volumes", "promote", "db", "data"]);
    beta.done(&["hosts", "remove", "alpha"]);
    deploy(&beta, "db", "size = \"256M\"", "");
    let (_proxy_here, here) = beta.proxy_to("db", 5432);
    let after = found(&here);
    println!(
        "{kept} transactions were there before the last copy, {last} when the host was killed, and {after} are in the copy"
    );
    // One of each client may have been committed without anybody being told.
    assert!(before < kept && (kept..=last + 2).contains(&after), "{before} {kept} {after} {last}");
    let said = String::from_utf8(benched(&here, seconds).wait_with_output().unwrap().stdout).unwrap();
    assert!(told(&said) > 0 && found(&here) == after + told(&said), "{said}");
}
