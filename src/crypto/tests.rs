//! Known answers, and that nothing passes that should not.

use super::*;

fn identity(name: &str) -> Identity {
    Identity::generate(name, &sha256(name.as_bytes()).0).unwrap()
}

#[test]
fn digests_are_the_known_ones() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256(b"abc").hex(), abc);
    let mut pieces = Sha256::new();
    pieces.update(b"a");
    pieces.update(b"bc");
    assert_eq!(pieces.finish().hex(), abc);
    assert_eq!(sha1(b"abc")[..4], [0xa9, 0x99, 0x3e, 0x36]);
}

#[test]
fn ed25519_answers_as_in_rfc_8032_section_7_1() {
    let seed = Digest::from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
        .unwrap();
    let key = SigningKey::from_seed(&seed.0).unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(Digest(key.public()).hex(), public);
    let made = key.sign(b"").unwrap();
    assert_eq!(made[..4], [0xe5, 0x56, 0x43, 0x00]);
    let verifier = VerifyingKey::from_octets(&key.public()).unwrap();
    assert!(verifier.verify(b"", &made).is_some());
    assert!(verifier.verify(b"x", &made).is_none());
    assert!(verifier.verify(b"", &made[..63]).is_none());
    assert!(VerifyingKey::from_octets(&[0; 31]).is_err());
}

#[test]
fn hmac_answers_as_in_rfc_4231_and_refuses_all_else() {
    let mut secret = [0; 32];
    secret[..4].copy_from_slice(b"Jefe");
    let key = PairKey::new("urn:x".into(), secret);
    // A shorter key is padded with zeros to the block (RFC 2104 §2), so this is RFC 4231 case 2.
    let mac = key.mac(b"what do ya want for nothing?");
    assert_eq!(mac[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    assert!(key.verify(b"what do ya want for nothing?", &mac).is_some());
    assert!(key.verify(b"what do ya want for nothing!", &mac).is_none());
    assert!(
        key.verify(b"what do ya want for nothing?", &mac[..16])
            .is_none()
    );
    assert!(key.verify(b"what do ya want for nothing?", &[]).is_none());
}

#[test]
fn r9_both_ends_make_the_same_pair_key_and_no_other_pair_does() {
    let (a, b, c) = (
        identity("replica-0"),
        identity("gateway"),
        identity("replica-1"),
    );
    let public = |i: &Identity| i.agreement().public().unwrap();
    let group = sha256(b"genesis");
    let make = |mine: &Identity, theirs: &Identity, group: &Digest, epoch| {
        let names = (mine.name(), theirs.name());
        pair_key(mine.agreement(), &public(theirs), group, epoch, names).unwrap()
    };
    let (ab, ba) = (make(&a, &b, &group, 1), make(&b, &a, &group, 1));
    assert_eq!(ab.secret(), ba.secret());
    assert_eq!(ab.urn(), ba.urn());
    let prefix = &group.hex()[..16];
    assert_eq!(
        ab.urn(),
        format!("urn:bft-ws:1:key:{prefix}:gateway:replica-0:1")
    );
    assert_ne!(ab.secret(), make(&a, &c, &group, 1).secret());
    assert_ne!(ab.secret(), make(&a, &b, &group, 2).secret());
    assert_ne!(
        ab.secret(),
        make(&a, &b, &sha256(b"other genesis"), 1).secret()
    );
}

#[test]
fn a_pair_key_wants_a_good_name_and_a_good_key() {
    let a = identity("a");
    let group = Digest::default();
    let theirs = identity("b").agreement().public().unwrap();
    for bad in ["", "a:b", "a b", &"x".repeat(65)] {
        let made = pair_key(a.agreement(), &theirs, &group, 1, ("a", bad));
        assert_eq!(made.unwrap_err(), KeyError::Name);
        assert_eq!(
            Identity::generate(bad, &[1; 32]).unwrap_err(),
            KeyError::Name
        );
    }
    let small_order = pair_key(a.agreement(), &[0; 32], &group, 1, ("a", "b"));
    assert_eq!(small_order.unwrap_err(), KeyError::Agreement);
}

#[test]
fn an_identity_survives_its_text_form_and_is_made_by_its_seed_alone() {
    let made = identity("replica-3");
    let read = Identity::from_secret(&made.to_secret()).unwrap();
    assert_eq!(read.name(), "replica-3");
    assert_eq!(read.certificate().der(), made.certificate().der());
    assert_eq!(read.agreement().public(), made.agreement().public());
    assert_eq!(
        identity("replica-3").certificate().der(),
        made.certificate().der()
    );
    let proof = read.signing().sign(b"x").unwrap();
    assert!(made.certificate().key().verify(b"x", &proof).is_some());
    assert!(!format!("{made:?}").contains(made.to_secret().split(' ').nth(2).unwrap()));
}

#[test]
fn a_secret_that_is_not_ours_is_refused() {
    let made = identity("a").to_secret();
    let other = identity("b").to_secret();
    let words: Vec<&str> = made.split_ascii_whitespace().collect();
    let certificate = other.split_ascii_whitespace().nth(3).unwrap();
    let mixed = format!("{} {} {} {certificate}", words[0], words[1], words[2]);
    assert_eq!(
        Identity::from_secret(&mixed).unwrap_err(),
        KeyError::Mismatch
    );
    for bad in [
        "",
        "bft-ws-secret-1 a",
        "bft-ws-secret-1 a AAAA AAAA",
        &format!("{made} x"),
    ] {
        assert_eq!(
            Identity::from_secret(bad).unwrap_err(),
            KeyError::Secret,
            "{bad}"
        );
    }
}

#[test]
fn a_certificate_is_read_strictly() {
    let made = identity("a");
    let der = made.certificate().der();
    let read = Certificate::from_der(der).unwrap();
    assert_eq!(read.thumbprint(), &sha1(der));
    assert_eq!(read.client_id(), made.certificate().client_id());
    let longer = [der, &[0]].concat();
    assert_eq!(
        Certificate::from_der(&longer).unwrap_err(),
        KeyError::Certificate
    );
    assert!(Certificate::from_der(&[]).is_err());
    assert!(Certificate::from_der(&vec![0x30; 8 << 10]).is_err());
    for at in 0..der.len() {
        let mut bent = der.to_vec();
        bent[at] ^= 1;
        assert!(
            Certificate::from_der(&bent).is_err(),
            "octet {at} is not covered"
        );
    }
}

#[test]
fn r16_the_seed_depends_on_secret_seqno_and_batch() {
    let batch = sha256(b"batch");
    let seed = hmac_seed(b"secret", Seqno(7), &batch);
    assert_eq!(seed, hmac_seed(b"secret", Seqno(7), &batch));
    assert_ne!(seed, hmac_seed(b"secreT", Seqno(7), &batch));
    assert_ne!(seed, hmac_seed(b"secret", Seqno(8), &batch));
    assert_ne!(seed, hmac_seed(b"secret", Seqno(7), &sha256(b"other")));
}

#[test]
fn what_is_authentic_keeps_its_author_through_map() {
    let key = PairKey::new("urn:x".into(), [7; 32]);
    let proof = key.verify(b"said", &key.mac(b"said")).unwrap();
    let from = Principal::Replica(ReplicaId(2));
    let said = Authentic::new("said", from, &proof).map(str::len);
    assert_eq!((said.from(), *said.value()), (from, 4));
}
