use super::*;

#[test]
fn what_is_refused_changes_nothing_and_says_what_is_allowed() {
    let metadata = Metadata::new().limit(16);
    metadata.set(r#"{ "a": "12345678" }"#).unwrap();
    assert_eq!(metadata.get(), r#"{"a":"12345678"}"#);
    let deep = "[".repeat(128) + &"]".repeat(128);
    for refused in [r#"{"a":"123456789"}"#, "", "{", "{} {}", &deep] {
        let error = metadata.set(refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused}");
        let error = metadata.patch(refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{refused}");
    }
    let error = metadata.patch(r#"{"b":1}"#).unwrap_err();
    assert_eq!(error.to_string(), "metadata of 22 bytes of JSON, allowed are at most 16");
    assert_eq!(metadata.get(), r#"{"a":"12345678"}"#);
    metadata.patch(r#"{"a":null,"b":1}"#).unwrap();
    assert_eq!(metadata.get(), r#"{"b":1}"#);
}

#[test]
fn a_clone_is_the_same_document() {
    let metadata = Metadata::new();
    let clone = metadata.clone();
    clone.set("[1]").unwrap();
    assert_eq!(metadata.get(), "[1]");
}

#[test]
fn no_patch_of_several_threads_is_lost() {
    let metadata = Metadata::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let metadata = &metadata;
            scope.spawn(move || {
                for number in 0..50 {
                    metadata.patch(&format!("{{\"{thread}-{number}\":1}}")).unwrap();
                }
            });
        }
    });
    let document: Value = serde_json::from_str(&metadata.get()).unwrap();
    assert_eq!(document.as_object().unwrap().len(), 200);
}

#[test]
fn only_addresses_that_are_link_local_are_allowed() {
    for allowed in [[169, 254, 1, 0], [169, 254, 254, 255], [169, 254, 169, 254]] {
        Metadata::new().address(allowed.into()).unwrap();
    }
    for refused in [[169, 254, 0, 255], [169, 254, 255, 0], [10, 0, 0, 1], [169, 253, 1, 1], [0, 0, 0, 0]] {
        let address = Ipv4Addr::from(refused);
        let message = Metadata::new().address(address).unwrap_err().to_string();
        assert!(
            message.contains(&address.to_string()) && message.contains("169.254.1.0 to 169.254.254.255"),
            "{message}"
        );
    }
}
