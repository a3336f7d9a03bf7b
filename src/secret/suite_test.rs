use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    <sha2::Sha256 as sha2::Digest>::digest(bytes).to_vec()
}

struct Vector {
    suite: Suite,
    random: &'static str,
    private: &'static str,
    info: &'static str,
    associated: &'static str,
    text: &'static str,
    sealed: &'static str,
}

impl Vector {
    /// Seals and opens as the vector says. Returns the public and the encapsulated key.
    fn hold(&self) -> (Vec<u8>, Vec<u8>) {
        let (info, associated, text) = (hex(self.info), hex(self.associated), hex(self.text));
        let message = Message { info: &info, associated: &associated };
        let public = self.suite.public_of(&hex(self.private)).unwrap();
        let mut random = [0; Drawn::LEN];
        let given = hex(self.random);
        random[..given.len()].copy_from_slice(&given);
        let (encapsulated, sealed) = self.suite.seal_by(&public, &message, &text, &mut Drawn::of(random)).unwrap();
        assert_eq!(sealed, hex(self.sealed));
        let mut opened = LockedBytes::zeroed(text.len()).unwrap();
        assert!(self.suite.open(&hex(self.private), &message, (&encapsulated, &sealed), &mut opened));
        assert_eq!(*opened, text);
        (public, encapsulated)
    }
}

#[test]
fn x25519_does_as_the_vectors_of_rfc_9180() {
    // RFC 9180, A.2.1, the first of its encryptions.
    let vector = Vector {
        suite: Suite::X25519,
        random: "909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b",
        private: "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        info: "4f6465206f6e2061204772656369616e2055726e",
        associated: "436f756e742d30",
        text: "4265617574792069732074727574682c20747275746820626561757479",
        sealed: "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
    };
    let (public, encapsulated) = vector.hold();
    assert_eq!(public, hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a"));
    assert_eq!(encapsulated, hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"));
}

#[test]
fn x_wing_does_as_the_vectors_of_its_draft() {
    // draft-ietf-hpke-pq, test-vectors.json of April 2026: base mode, KEM 0x647a, KDF 1, AEAD 3, the first of its encryptions.
    let vector = Vector {
        suite: Suite::XWing,
        random: "2a1c0a3745fe8a48fb62034d300f54dfe1974a5b2e169e580a8789cb1cf5fd190fc00f3fd899594e01a8b15334b9f3fa03d8de44da86e19f5776850fb689e6c8",
        private: "3ec47fa82dd5689d27c6190e724c74ec8f608df3331ce331929e37b829676630",
        info: "34663634363532303666366532303631323034373732363536333639363136653230353537323665",
        associated: "436f756e742d30",
        text: "34323635363137353734373932303639373332303734373237353734363832633230373437323735373436383230363236353631373537343739",
        sealed: "c5c591f99092d5e38df0a52699af249c66f8275a863423c076de8147a53e65cc584041c963b77a7e59ea93841b1339b5efda8909b71f74bb0073ad62e899de310c1566dea2fd29eba377",
    };
    let (public, encapsulated) = vector.hold();
    assert_eq!(sha256(&public), hex("ad8aaf3f00d8a39bfeec2947a7d5dde68be08bba19bd301a348a45dc5fcc8341"));
    assert_eq!(sha256(&encapsulated), hex("95c0a5fca31ea59f29bbc66255ad6637b5a476b3212886af11afdc8930aeb772"));
}

#[test]
fn a_key_of_small_order_seals_nothing() {
    let mut one = [0; 32];
    one[0] = 1;
    for public in [[0; 32], one] {
        let error = Suite::X25519.seal(&public, &Message { info: b"", associated: b"" }, b"text").unwrap_err();
        assert!(error.to_string().contains("nothing can be sealed to this key"), "{error}");
    }
}

#[test]
fn a_key_that_is_none_of_x_wing_is_refused() {
    // A coefficient of ML-KEM is below 3329.
    assert!(Suite::XWing.check_public(&[0xff; 1216]).is_err());
    assert!(Suite::XWing.check_public(&[0; 1216]).is_ok());
}

#[test]
fn lengths_are_those_of_the_library() {
    for suite in [Suite::X25519, Suite::XWing] {
        let key = [7; PRIVATE_LEN];
        let public = suite.public_of(&key).unwrap();
        let (encapsulated, sealed) = suite.seal(&public, &Message { info: b"", associated: b"" }, b"text").unwrap();
        let lens = (public.len(), encapsulated.len(), sealed.len());
        assert_eq!(lens, (suite.public_len(), suite.encapsulated_len(), 4 + TAG_LEN));
        assert_eq!(Suite::of_ids(suite.ids()).unwrap(), suite);
        assert_eq!(suite.to_string().parse(), Ok(suite));
    }
}

#[test]
fn more_random_bytes_than_were_drawn_are_noticed() {
    let mut drawn = Drawn::of([1; Drawn::LEN]);
    let Ok(()) = drawn.try_fill_bytes(&mut [0; Drawn::LEN - 8]);
    let Ok(number) = drawn.try_next_u64();
    assert_eq!((number, drawn.is_short), (0x0101_0101_0101_0101, false));
    let Ok(_) = drawn.try_next_u32();
    assert!(drawn.is_short);
}
