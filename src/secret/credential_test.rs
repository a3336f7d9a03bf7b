use super::*;

fn memory() -> GuestMemory {
    GuestMemory::anonymous(&[(GuestAddress(0), 16 << 20)]).unwrap()
}

fn text(memory: &GuestMemory, place: &Place) -> String {
    let mut bytes = vec![0; place.len()];
    memory.read(GuestAddress(place.at), &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn secret(name: &str, len: usize) -> Secret {
    Secret::new(name, &vec![7; len]).unwrap()
}

#[test]
fn each_secret_is_a_string_of_its_own_in_base64_of_any_length() {
    let memory = memory();
    let values: Vec<_> =
        (1..=100u8).map(|len| (0..len).map(|byte| byte.wrapping_mul(37)).collect::<Vec<_>>()).collect();
    let secrets: Vec<_> =
        values.iter().enumerate().map(|(index, value)| Secret::new(&format!("s{index}"), value).unwrap()).collect();
    let places = Place::for_all(&memory, &secrets).unwrap();
    for ((place, secret), value) in places.iter().zip(&secrets).zip(&values) {
        let wanted = format!("io.systemd.credential.binary:{}={}", secret.name(), Base64::encode_string(value));
        assert_eq!(text(&memory, place), wanted);
    }
}

#[test]
fn a_scrubbed_secret_leaves_no_byte_and_harms_no_neighbour() {
    let memory = memory();
    let places = Place::for_all(&memory, &[secret("a", 5), secret("b", 5)]).unwrap();
    places[0].scrub(&memory).unwrap();
    assert_eq!(text(&memory, &places[0]), "-".repeat(places[0].len()));
    assert_eq!(text(&memory, &places[1]), "io.systemd.credential.binary:b=BwcHBwc=");
}

#[test]
fn another_value_fits_if_it_is_not_longer_and_reads_the_same_as_if_it_were_alone() {
    let memory = memory();
    let place = &Place::for_all(&memory, &[secret("a", 9)]).unwrap()[0];
    place.fill(&memory, &Secret::new("a", b"new").unwrap()).unwrap();
    assert_eq!(text(&memory, place), "io.systemd.credential.binary:a=bmV3\n\n\n\n\n\n\n\n");
    let error = place.check_room(&secret("a", 10)).unwrap_err().to_string();
    assert!(error.contains("secret a has 10 bytes, allowed are 9"), "{error}");
}

#[test]
fn secrets_that_no_table_has_room_for_are_refused_with_the_numbers() {
    let many: Vec<_> = (0..256).map(|index| secret(&format!("s{index}"), 1)).collect();
    assert!(check(&many).unwrap_err().to_string().contains("256 secrets, allowed are 255"));
    assert!(check(&many[..255]).is_ok());
    let twice = [secret("a", 1), secret("b", 1), secret("a", 2)];
    assert!(check(&twice).unwrap_err().to_string().contains("secret a was given twice"));
    let error = check(&[secret("a", 48 << 10)]).unwrap_err().to_string();
    assert!(error.contains("take 65568 bytes in its tables, allowed are 49108"), "{error}");
    let most = (arch::OEM_STRINGS_ROOM - 32) / 4 * 3;
    assert!(check(&[secret("a", most)]).is_ok() && check(&[secret("a", most + 1)]).is_err());
    Place::for_all(&memory(), &[secret("a", most)]).unwrap();
}

#[cfg(feature = "save")]
#[test]
fn places_that_somebody_made_up_are_refused() {
    let check = |places: &[Place]| Place::check_all(places, &memory());
    let place = |name: &str, at, len| Place { name: name.into(), at, len };
    for (at, len) in [(u64::MAX, 1), (0xf_2000, 1 << 20), (16 << 20, 1)] {
        let error = check(&[place("a", at, len)]).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::GuestAddress, "{error}");
    }
    let many = vec![place("a", 0, 1); 256];
    assert!(check(&many[..255]).is_ok());
    assert!(check(&many).unwrap_err().to_string().contains("places for 256 secrets, allowed are 255"));
    let long = [place("a", 0, 49107), place("b", 0, 1)];
    assert!(check(&long[..1]).is_ok());
    assert!(check(&long).unwrap_err().to_string().contains("take 49110 bytes, allowed are 49108"));
    assert!(check(&[place("\u{1b}[2J", 0, 1)]).unwrap_err().to_string().contains("no name that is allowed"));
}
