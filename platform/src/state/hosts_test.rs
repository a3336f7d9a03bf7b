//! Lists of hosts that are changed at several hosts, by right and by wrong.

use std::net::SocketAddr;

use proptest::prelude::*;
use vmcell::network::wireguard::PrivateKey;

use super::hosts::{FAR, LARGEST_HOST, MOST_MOVES, Member, Roster};
use crate::app::MOST_HOSTS;

fn member(number: u16, name: &str, key: u8) -> Member {
    let endpoint = SocketAddr::from(([192, 0, 2, key], 7000));
    let tunnel = PrivateKey::from_bytes([key; 32]).public_key().to_string();
    Member { number, name: name.into(), endpoint, moves: 0, certificate: format!("{key:064x}"), tunnel }
}

fn roster(names: &[&str]) -> Roster {
    let mut roster = Roster::default();
    for (name, key) in names.iter().zip(1..) {
        roster.add(member(0, name, key)).unwrap();
    }
    roster
}

fn numbers(roster: &Roster) -> Vec<u16> {
    roster.hosts.iter().map(|member| member.number).collect()
}

/// What both know once each has told the other one; it has to be the same.
fn both(one: &Roster, other: &Roster) -> Roster {
    let merged = one.merged(other, 1, 2);
    assert_eq!(merged, other.merged(one, 2, 1));
    assert_eq!((merged.check(), merged.merged(other, 1, 2)), (Ok(()), merged.clone()));
    merged
}

#[test]
fn a_host_that_was_removed_stays_so_whatever_others_do_that_have_not_heard_of_it() {
    let known = roster(&["alpha", "beta", "gamma"]);
    let (mut removed, mut added) = (known.clone(), known);
    removed.remove(3);
    assert_eq!(added.add(member(0, "delta", 4)), Ok(4));
    let mut merged = both(&removed, &added);
    assert_eq!((numbers(&merged), merged.gone.clone()), (vec![1, 2, 4], [3].into()));
    assert_eq!(merged.clone().add(member(0, "gamma", 3)), Ok(5), "a number is given once");
    removed.remove(2);
    assert_eq!(removed.add(member(0, "beta", 5)), Ok(4), "that of the last one neither");
    // A host that says that the last number is gone takes that one alone.
    merged.gone.insert(LARGEST_HOST);
    assert_eq!(merged.add(member(0, "epsilon", 6)), Ok(5));
    merged.gone.extend(1..=LARGEST_HOST);
    assert!(merged.add(member(0, "zeta", 7)).unwrap_err().message.contains("all numbers of hosts were given"));
}

#[test]
fn of_hosts_with_one_number_name_or_key_no_two_stay() {
    let known = roster(&["alpha", "beta"]);
    let (mut one, mut other) = (known.clone(), known.clone());
    one.add(member(0, "gamma", 3)).unwrap();
    other.add(member(0, "delta", 4)).unwrap();
    assert_eq!(numbers(&both(&one, &other)), [1, 2]);
    // Nobody takes the number of another one by a list.
    let mut forged = known.clone();
    forged.hosts[1] = Member { number: 2, name: "beta".into(), ..member(2, "beta", 9) };
    let merged = known.merged(&forged, 1, 3);
    assert!(merged.numbered(2).is_none() && merged.gone.contains(&2));
    for same in [member(7, "beta", 7), Member { name: "x".into(), number: 7, ..member(2, "beta", 2) }] {
        let mut forged = known.clone();
        forged.hosts.push(same);
        assert!(forged.check().is_err());
        forged.hosts.remove(1);
        assert_eq!(numbers(&known.merged(&forged, 1, 2)), [1, 2]);
    }
}

#[test]
fn where_a_host_is_found_is_its_own_word() {
    let known = roster(&["alpha", "beta", "gamma"]);
    let tell = |number: usize, moves| {
        let mut told = known.clone();
        (told.hosts[number - 1].endpoint, told.hosts[number - 1].moves) = ("192.0.2.99:1".parse().unwrap(), moves);
        told
    };
    let found = |merged: &Roster, number| merged.numbered(number).unwrap().endpoint.to_string();
    assert_eq!(found(&known.merged(&tell(3, 1), 1, 2), 3), "192.0.2.99:1", "what others have heard");
    assert_eq!(found(&known.merged(&tell(3, FAR + 1), 1, 2), 3), "192.0.2.3:7000", "what nobody has said");
    assert_eq!(found(&known.merged(&tell(3, MOST_MOVES), 1, 3), 3), "192.0.2.99:1", "what it says itself");
    // Its own it knows, and says it so that the others hear it.
    let own = known.merged(&tell(1, 5), 1, 2);
    assert_eq!((found(&own, 1), own.numbered(1).unwrap().moves), ("192.0.2.1:7000".into(), 6));
    assert_eq!(known.merged(&tell(1, FAR + 1), 1, 2), known, "nor so often, since it could not move any more then");
    assert_eq!(known.merged(&tell(1, MOST_MOVES), 1, 2).check(), Ok(()));
    assert!(tell(1, MOST_MOVES + 1).check().unwrap_err().message.contains("has moved"));
}

#[test]
fn a_list_of_too_many_leaves_those_that_were_first() {
    let names: Vec<String> = (1..=MOST_HOSTS).map(|number| format!("host-{number}")).collect();
    let known = roster(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(known.clone().add(member(0, "more", 99)).unwrap_err().message.contains("the mesh has 16 hosts"));
    let mut other = roster(&["host-1"]);
    other.hosts.push(member(40, "more", 99));
    let merged = known.merged(&other, 1, 2);
    assert_eq!((numbers(&merged), merged.gone), (numbers(&known), [40].into()));
}

/// One of four hosts lets another one in, takes one out, moves, or hears the list of another.
fn step(lists: &mut [Roster; 4], (what, at, of): (u8, usize, usize), key: u8) {
    let own = at as u16 + 1;
    match what {
        0 => _ = lists[at].add(member(0, &format!("more-{key}"), key)),
        1 => {
            if let Some(last) = lists[at].hosts.last().filter(|last| last.number > 4).cloned() {
                lists[at].remove(last.number);
            }
        }
        2 => {
            if let Some(host) = lists[at].hosts.iter_mut().find(|host| host.number == own) {
                (host.endpoint, host.moves) = (([198, 51, 100, key], 7000).into(), host.moves + 1);
            }
        }
        _ => lists[at] = lists[at].merged(&lists[of], own, of as u16 + 1),
    }
}

/// Each hears each other, and twice, so that what the last one says reaches the first.
fn tell_all(lists: &mut [Roster; 4]) {
    for (at, of) in (0..32).map(|pair| (pair / 4 % 4, pair % 4)) {
        lists[at] = lists[at].merged(&lists[of], at as u16 + 1, of as u16 + 1);
    }
}

proptest! {
    #[test]
    fn hosts_that_have_told_each_other_all_know_the_same_whatever_was_changed_where_and_when(
        steps in prop::collection::vec((0..8_u8, 0..4_usize, 0..4_usize), 0..60),
    ) {
        let mut lists = [(); 4].map(|()| roster(&["alpha", "beta", "gamma", "delta"]));
        for (key, taken) in (5..).zip(steps) {
            let before = lists.clone();
            step(&mut lists, taken, key);
            prop_assert!(before.iter().zip(&lists).all(|(old, new)| new.gone.is_superset(&old.gone)));
        }
        tell_all(&mut lists);
        prop_assert!(lists.iter().all(|list| *list == lists[0]), "{lists:#?}");
        prop_assert_eq!(lists[0].check(), Ok(()));
        prop_assert!(numbers(&lists[0]).starts_with(&[1, 2, 3, 4]), "nobody took these out: {:?}", lists[0]);
    }
}
