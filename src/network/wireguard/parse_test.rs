use proptest::prelude::*;

use super::*;

const KEY: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const OWN: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const BOB: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
const EVE: &str = "6gDDRWKEm6Un2gbzwPl1aQhIjGnIEqaJ2AGOTDEwFhw=";
const NOTHING: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// An interface in lines 1 and 2, then `rest` from line 3 on.
fn with(rest: &str) -> String {
    format!("[Interface]\nPrivateKey={KEY}\n{rest}")
}

fn peer(rest: &str) -> String {
    with(&format!("[Peer]\nPublicKey={BOB}\n{rest}"))
}

#[test]
fn every_setting_is_read() {
    let text = format!(
        "# a host\r\n[interface]\r\nprivatekey = {KEY} # secret\r\nLISTENPORT=51820\r\nAddress = 10.0.0.1/24, fd00::1/64\r\nAddress = 10.0.0.2\r\n\
         MTU=1420\r\nDNS = 10.0.0.53, fd00::3, internal\r\n\r\n[Peer]\r\nPublicKey={BOB}\r\nPresharedKey={EVE}\r\n\
         AllowedIPs = 10.0.0.7/8, ::/0\r\nAllowedIPs = fd00:1::/32\r\nEndpoint = [2001:db8::1]:51820\r\nPersistentKeepalive = 25\r\n\
         [PEER]\r\nPublicKey={EVE}\r\nAllowedIPs =\r\nEndpoint = gw.example.com:7\r\nPersistentKeepalive = off\r\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.private_key.public_key().to_string(), OWN);
    assert_eq!((config.listen_port, config.mtu), (Some(51820), Some(1420)));
    let addresses: Vec<String> = config.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1/24", "fd00::1/64", "10.0.0.2/32"]);
    assert_eq!((config.dns.len(), &config.search_domains[..]), (2, &["internal".to_owned()][..]));
    let [bob, eve] = &config.peers[..] else { panic!("{:?}", config.peers) };
    let allowed: Vec<String> = bob.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.0.0.0/8", "::/0", "fd00:1::/32"]);
    assert_eq!(bob.endpoint, Some(Endpoint::Address("[2001:db8::1]:51820".parse().unwrap())));
    assert_eq!((bob.persistent_keepalive, bob.preshared_key.is_some()), (25, true));
    assert_eq!(eve.endpoint, Some(Endpoint::Name { host: "gw.example.com".to_owned(), port: 7 }));
    assert_eq!((eve.persistent_keepalive, eve.allowed_ips.len()), (0, 0));
    config.check().unwrap();
    assert_eq!(parse(&config.to_text()).unwrap(), config);
}

#[test]
fn what_is_refused_is_said_with_its_line() {
    let cases = [
        (String::new(), "without the section `[Interface]`"),
        ("[Interface]\nMTU=1420".to_owned(), "without the setting `PrivateKey`"),
        ("MTU=1420".to_owned(), "line 1: `MTU`: a setting before the first section"),
        (with("[Interface]"), "line 3: a second `[Interface]`, the first is in line 1"),
        (with("[Pear]"), "line 3: the section `[Pear]`"),
        (with("nonsense"), "line 3: neither a section"),
        (with("MTU="), "line 3: `MTU` has no value"),
        (with("PrivateKey=x"), "line 3: `PrivateKey`: 1 characters that are no key"),
        (with(&format!("PrivateKey={KEY}")), "line 3: `PrivateKey`: given again, first in line 2"),
        (with("ListenPort=65536"), "line 3: `ListenPort`: `65536`, allowed are 0 to 65535"),
        (with("ListenPort=+1"), "line 3: `ListenPort`: `+1`, allowed"),
        (with("MTU=575"), "line 3: `MTU`: an MTU of 575 bytes, allowed are 576 to 65472"),
        (with("MTU=65473"), "an MTU of 65473 bytes"),
        (with("Address=10.0.0.1/33"), "line 3: `Address`: `10.0.0.1/33` has a prefix of `33` bits"),
        (with("Address=10.0.0.1,10.0.0.1"), "line 3: `Address`: `10.0.0.1/32` is given twice"),
        (with("DNS=10.0.0.256"), "line 3: `DNS`: `10.0.0.256` is neither an address nor a name"),
        (with("PostUp=reboot"), "line 3: `PostUp`: refused: no command is run from a file"),
        (with("predown=reboot"), "line 3: `predown`: refused: no command"),
        (with("SaveConfig=true"), "line 3: `SaveConfig`: refused: "),
        (with("FwMark=1"), "line 3: `FwMark`: refused: the routes of the host"),
        (with("Colour=red"), "line 3: `Colour`: no setting of this section; known are PrivateKey, "),
        (peer("ListenPort=1"), "line 5: `ListenPort`: no setting of this section; known are PublicKey, "),
        (with("[Peer]\nAllowedIPs=::/0"), "line 3: this `[Peer]` has no `PublicKey`"),
        (with(&format!("[Peer]\nPublicKey={OWN}")), "line 4: the public key is that of the interface itself"),
        (
            with(&format!("[Peer]\nPublicKey={KEY}")),
            "line 4: the private key of the interface stands where a public key",
        ),
        (with(&format!("[Peer]\nPublicKey={NOTHING}")), "proves nothing"),
        (peer(&format!("[Peer]\nPublicKey={BOB}")), "line 6: the public key 3p7bfXt9"),
        (peer("AllowedIPs=10.0.0.0/8,10.1.1.1/8"), "line 5: 10.0.0.0/8 is allowed twice, first at 5"),
        (
            peer(&format!("AllowedIPs=::/0\n[Peer]\nPublicKey={EVE}\nAllowedIPs=::/0")),
            "line 8: ::/0 is allowed twice, first at 5",
        ),
        (peer("AllowedIPs=10.0.0.0/8,"), "line 5: `AllowedIPs`: `` is no IP address"),
        (peer("Endpoint=10.0.0.1"), "line 5: `Endpoint`: `10.0.0.1` has no port"),
        (peer("Endpoint=10.0.0.1:0"), "line 5: `Endpoint`: `0`, allowed are 1 to 65535"),
        (peer("Endpoint=host:0"), "line 5: `Endpoint`: `0`, allowed"),
        (peer("Endpoint=10.0.0.300:1"), "neither an address nor a name"),
        (
            peer("Endpoint=fd00::1:51820"),
            "`fd00::1:51820` has an IPv6 address without brackets, as `[fd00::1]:51820` has them",
        ),
        (peer("PersistentKeepalive=65536"), "line 5: `PersistentKeepalive`: `65536`"),
    ];
    for (text, expected) in cases {
        let message = refusal(&text);
        assert!(message.contains(expected), "{text:?} gave {message:?} instead of {expected:?}");
    }
}

#[test]
fn a_program_is_told_the_same_as_a_file() {
    let mut config = Config::new(KEY.parse().unwrap());
    config.mtu = Some(1);
    assert!(config.check().is_err());
    config.mtu = None;
    let bob = PeerConfig::new(BOB.parse().unwrap()).allow("::/0".parse().unwrap());
    config.peers = vec![bob.clone(), bob];
    assert!(config.check().unwrap_err().to_string().contains("peer 1 ("));
    config.peers = vec![PeerConfig::new(OWN.parse().unwrap())];
    assert!(config.check().unwrap_err().to_string().contains("the interface itself"));
    config.peers = vec![PeerConfig::new(KEY.parse().unwrap())];
    assert!(!config.check().unwrap_err().to_string().contains(KEY));
    let mut many = PeerConfig::new(BOB.parse().unwrap());
    let one = |index: u32| AllowedIp::single(std::net::Ipv4Addr::from(index).into());
    many.allowed_ips = (0..=1024).map(one).collect();
    config.peers = vec![many];
    assert!(config.check().unwrap_err().to_string().contains("1025 allowed IPs"));
}

#[test]
fn a_file_as_long_as_it_may_be_and_one_that_is_longer() {
    let padding = "\n".repeat(MAX_TEXT - with("").len());
    parse(&with(&padding)).unwrap();
    assert!(refusal(&with(&(padding + "\n"))).contains("allowed are 33554432"));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        listen_port in proptest::option::of(any::<u16>()),
        mtu in proptest::option::of(576_u16..=65_472),
        prefixes in proptest::collection::hash_set((any::<u32>(), 0_u8..=32), 0..8),
        endpoint in proptest::option::of((any::<u128>(), 1_u16..)),
        persistent_keepalive in any::<u16>(),
        preshared in proptest::option::of(any::<[u8; 32]>()),
    ) {
        let mut config = Config::new(KEY.parse().unwrap());
        (config.listen_port, config.mtu) = (listen_port, mtu);
        let mut bob = PeerConfig::new(BOB.parse().unwrap()).persistent_keepalive(persistent_keepalive);
        for (address, len) in prefixes {
            let prefix = AllowedIp::new(std::net::Ipv4Addr::from(address).into(), len).unwrap();
            if !bob.allowed_ips.contains(&prefix) {
                bob.allowed_ips.push(prefix);
            }
        }
        bob.endpoint = endpoint.map(|(address, port)| Endpoint::Address((std::net::Ipv6Addr::from(address), port).into()));
        bob.preshared_key = preshared.map(PresharedKey::from_bytes);
        config.peers.push(bob);
        config.check().unwrap();
        prop_assert_eq!(parse(&config.to_text()).unwrap(), config);
    }

    #[test]
    fn no_text_brings_it_down(text in "(\\[Interface\\]|\\[Peer\\]|PublicKey|AllowedIPs|Endpoint|=|,|/|:|#|\n|[a-z0-9]|.){0,64}") {
        let _ = parse(&text);
    }
}

#[test]
fn no_text_of_a_programs_becomes_a_setting_of_its_own() {
    let mut config = Config::parse(&with("")).unwrap();
    config.search_domains = vec!["internal\nPostUp = evil".to_owned()];
    assert!(config.check().unwrap_err().chain().contains("neither an address nor a name"));
    assert!(!config.to_text().lines().any(|line| line.starts_with("PostUp")), "{}", config.to_text());
    config.search_domains.clear();
    let mut peer = PeerConfig::new(PrivateKey::generate().unwrap().public_key());
    peer.endpoint = Some(Endpoint::Name { host: "host\nAllowedIPs = ::/0\n#".to_owned(), port: 1 });
    config.peers = vec![peer.clone()];
    assert!(config.check().is_err());
    assert!(!config.to_text().lines().any(|line| line.starts_with("AllowedIPs")), "{}", config.to_text());
    let refused = "the endpoint `host:0` has port 0, allowed are 1 to 65535";
    config.peers = vec![PeerConfig { endpoint: Some(Endpoint::Name { host: "host".to_owned(), port: 0 }), ..peer }];
    assert!(config.check().unwrap_err().to_string().contains(refused));
}
