use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use num_bigint::BigUint;
use sha2::{Digest as _, Sha256};

use super::*;

const KEY: &str = include_str!("testdata/key.pem");
const KEY_PKCS1: &str = include_str!("testdata/key-pkcs1.pem");
const CERTIFICATE: &str = include_str!("testdata/certificate.pem");
const OTHER: &str = include_str!("testdata/other-certificate.pem");

/// The key's modulus, as openssl shows it.
const MODULUS: &str = "\
    B97789357B38AA66EC4E27BF56B07383E0044004C1E601931BDE2273F88F12E0BBA1FA6FCF188A6C4AE628B5\
    19DE700FED16BF665CD113D750AD3F09C0CDFDE2DF775415CA52AD054AB242AA58D93669D7916AC747711907\
    4C7A847F58D747A2B8C958CA2D1801B21C12E0FEAB6E603A3BC7B3EE495BBAB5BFDFD112FA0AA71A692A483B\
    805A5CF77E6BEC98A7ED3138783D706F6C6CEC05326107CE4A55C7C854A64A704A59F1B0D045B098031B0295\
    699092087009F2940C41650C7DE902794EA66ECCD40ACEB06F99AF7795725CF65B5B4556DB97B73710314631\
    40ED659B2FE9F7CCD0162E6139032B129829C85DB78FA9E1F486FBB7CAFA9AC145FF8E6F";

/// The SHA-256 of the certificate, as openssl computes it, in base64url.
const THUMBPRINT: &str = "BLmMOkw4aw1f7UBvAbBvjSpQhgKDZOE311oYCILTHsc";

/// RSASSA-PSS-VERIFY with SHA-256 and a salt of 32 bytes, as in RFC 8017, 8.1.2 and 9.1.2.
fn verifies(message: &[u8], signature: &[u8]) -> bool {
    let modulus = BigUint::parse_bytes(MODULUS.as_bytes(), 16).unwrap();
    let encoded = BigUint::from_bytes_be(signature).modpow(&BigUint::from(65_537u32), &modulus);
    // A number has no leading zero; the block may.
    let digits = encoded.to_bytes_be();
    let encoded = [&vec![0; 256 - digits.len()][..], &digits].concat();
    if signature.len() != 256 || encoded.len() != 256 || encoded[255] != 0xbc {
        return false;
    }
    let (masked, hash) = encoded[..255].split_at(223);
    let mask = (0u32..).flat_map(|count| {
        Sha256::new()
            .chain_update(hash)
            .chain_update(count.to_be_bytes())
            .finalize()
            .to_vec()
    });
    let mut block: Vec<u8> = masked
        .iter()
        .zip(mask)
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    block[0] &= 0x7f;
    let (padding, salt) = block.split_at(191);
    let is_padding = padding[..190].iter().all(|byte| *byte == 0) && padding[190] == 1;
    let inner = Sha256::new()
        .chain_update([0; 8])
        .chain_update(Sha256::digest(message));
    is_padding && *hash == *inner.chain_update(salt).finalize()
}

#[test]
fn assertion_is_signed_so_that_another_implementation_verifies_it() {
    for pem in [
        format!("{KEY}{CERTIFICATE}"),
        format!("{CERTIFICATE}text\n{KEY_PKCS1}"),
    ] {
        let certificate = Certificate::read(pem.as_bytes(), false).unwrap();
        let url = "https://login.example/t/oauth2/v2.0/token";
        let jwt = certificate.assertion(url, "1f2e", 1_767_780_000).unwrap();
        let again = certificate.assertion(url, "1f2e", 1_767_780_000).unwrap();
        assert_ne!(*jwt, *again, "each has an ID and a salt of its own");
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(verifies(signed.as_bytes(), &signature));
        assert!(!verifies(
            again.rsplit_once('.').unwrap().0.as_bytes(),
            &signature
        ));
        let header = URL_SAFE_NO_PAD
            .decode(jwt.split('.').next().unwrap())
            .unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["x5t#S256"], THUMBPRINT);
    }
}

#[test]
fn certificate_of_the_key_comes_first_in_the_chain_that_is_sent() {
    let pem = format!("{OTHER}{KEY}{CERTIFICATE}");
    let certificate = Certificate::read(pem.as_bytes(), true).unwrap();
    let jwt = certificate
        .assertion("https://login.example", "1f2e", 0)
        .unwrap();
    let header = URL_SAFE_NO_PAD
        .decode(jwt.split('.').next().unwrap())
        .unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    let base64 =
        |pem: &str| -> String { pem.lines().filter(|line| !line.starts_with('-')).collect() };
    assert_eq!(
        header["x5c"],
        serde_json::json!([base64(CERTIFICATE), base64(OTHER)])
    );
    assert_eq!(header["x5t#S256"], THUMBPRINT);
}

#[test]
fn file_that_cannot_be_used_says_why_and_what_to_do() {
    let with = |key: &str| format!("{key}{CERTIFICATE}");
    let damaged = KEY.replacen("MII", "MI!", 1);
    let cut = &KEY[..KEY.len() - 40];
    let rows = [
        (
            "0\u{82}...".to_owned(),
            "openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes",
        ),
        (
            with(include_str!("testdata/key-encrypted.pem")),
            "openssl pkey",
        ),
        (
            with(include_str!("testdata/key-encrypted-pkcs1.pem")),
            "openssl pkey",
        ),
        (with(include_str!("testdata/key-ec.pem")), "not for RSA"),
        (
            with(include_str!("testdata/key-ec-sec1.pem")),
            "not for RSA",
        ),
        (
            with(include_str!("testdata/key-1024.pem")),
            "2048 bits or more",
        ),
        (String::new(), "neither certificate nor key"),
        ("a secret".to_owned(), "neither certificate nor key"),
        (CERTIFICATE.to_owned(), "no private key"),
        (KEY.to_owned(), "no certificate"),
        (
            format!("{KEY}{OTHER}"),
            "belongs to none of its certificates",
        ),
        (
            format!("{KEY}{KEY_PKCS1}{CERTIFICATE}"),
            "several private keys",
        ),
        (with(&damaged), "damaged"),
        (cut.to_owned(), "damaged"),
    ];
    for (pem, rule) in rows {
        let error = Certificate::read(pem.as_bytes(), false).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Config);
        assert!(
            error
                .to_string()
                .starts_with("invalid client certificate: "),
            "{error}"
        );
        assert!(error.to_string().contains(rule), "{error}, not {rule}");
    }
}

#[test]
fn debug_never_shows_the_key() {
    let pem = format!("{KEY}{CERTIFICATE}");
    let certificate = Certificate::read(pem.as_bytes(), false).unwrap();
    assert_eq!(format!("{certificate:?}"), "Certificate");
}
