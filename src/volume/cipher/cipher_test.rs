//! Official vectors, and each way against the other.

use super::*;

/// From hexadecimal digits.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// 0, 1, 2 and so on.
fn counting(len: usize) -> Vec<u8> {
    (0..len).map(|index| index as u8).collect()
}

fn portable(key: &[u8], sector_size: usize) -> Cipher {
    Cipher::with(key, sector_size, |_| None).unwrap()
}

fn encrypted(cipher: &Cipher, unit: u64, plain: &[u8]) -> Vec<u8> {
    let mut data = plain.to_vec();
    cipher.encrypt(unit * UNIT, &mut data);
    data
}

/// IEEE 1619-2007, annex B: key, number of the data unit, the first and the last bytes of 512 encrypted ones, whose plain text counts.
const VECTORS: &[(&str, u64, &str, &str)] = &[
    (
        "27182818284590452353602874713526 31415926535897932384626433832795",
        0,
        "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c",
        "0a282df920147beabe421ee5319d0568",
    ),
    (
        "2718281828459045235360287471352662497757247093699959574966967627
         3141592653589793238462643383279502884197169399375105820974944592",
        0xff,
        "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
        "c4f36ffda9fcea70b9c6e693e148c151",
    ),
];

#[test]
fn the_standards_vectors_come_out() {
    for (key, unit, first, last) in VECTORS {
        for cipher in [portable(&hex(key), 512), Cipher::new(&hex(key), 512).unwrap()] {
            let mut data = encrypted(&cipher, *unit, &counting(512));
            assert_eq!((&data[..32], &data[496..]), (&*hex(first), &*hex(last)));
            cipher.decrypt(unit * UNIT, &mut data);
            assert_eq!(data, counting(512));
        }
    }
}

#[test]
fn every_sector_is_the_same_in_each_way() {
    if !Wide::is_possible() {
        return;
    }
    for key_len in [32, 64] {
        let key: Vec<u8> = counting(key_len).iter().map(|byte| byte.wrapping_mul(37) ^ 0x5a).collect();
        for sector_size in [512, 1024, 2048, 4096] {
            let (slow, fast) = (portable(&key, sector_size), Cipher::new(&key, sector_size).unwrap());
            for unit in [0, 8, 1 << 20, !7_u64] {
                let at = unit.wrapping_mul(UNIT);
                let (mut one, mut other) = (counting(3 * sector_size), counting(3 * sector_size));
                slow.encrypt(at, &mut one);
                fast.encrypt(at, &mut other);
                assert_eq!(one, other, "{key_len} {sector_size} {unit}");
                slow.decrypt(at, &mut other);
                fast.decrypt(at, &mut one);
                assert_eq!((one, other), (counting(3 * sector_size), counting(3 * sector_size)));
            }
        }
    }
}

#[test]
fn the_initial_vector_counts_512_bytes_whatever_a_sector_has() {
    let key = counting(64);
    let (small, large) = (Cipher::new(&key, 512).unwrap(), Cipher::new(&key, 4096).unwrap());
    let plain = counting(8192);
    let data = encrypted(&large, 0, &plain);
    // The first block of a sector depends on where the sector lies, and on nothing that comes before.
    assert_eq!(data[4096..4112], encrypted(&small, 8, &plain[4096..4608])[..16]);
}

#[test]
fn a_key_or_a_sector_of_another_size_is_refused_by_its_size() {
    let said = |key_len, sector_size| Cipher::new(&counting(key_len), sector_size).err().unwrap().to_string();
    assert_eq!(said(48, 512), "a key of AES-XTS has 48 bytes, allowed are 32 and 64");
    assert_eq!(said(64, 8192), "a sector has 8192 bytes, allowed are 512, 1024, 2048 and 4096");
}
