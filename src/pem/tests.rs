use super::*;

fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["tc.example.com".into()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn count(pem: &str) -> Result<usize, String> {
    parse_certificates(pem.as_bytes()).map(|found| found.len())
}

#[test]
fn text_around_certificates_line_ends_and_other_blocks_do_not_matter() {
    let (pem, key) = certificate();
    for (content, expected) in [
        (pem.clone(), 1),
        (pem.replace('\n', "\r\n"), 1),
        (format!("# a comment\n{pem}\n trailing words"), 1),
        (format!("{pem}{key}{pem}"), 2),
    ] {
        assert_eq!(count(&content), Ok(expected));
    }
}

#[test]
fn one_unusable_certificate_makes_a_file_unusable() {
    let (pem, key) = certificate();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let indented = pem.replace("-----BEGIN", "  -----BEGIN");
    let truncated = &pem[..pem.len() / 2];
    for unusable in [
        String::new(),
        "nonsense".to_owned(),
        key,
        broken.to_owned(),
        format!("{pem}{broken}"),
        format!("{broken}{pem}"),
        format!("{pem}{indented}"),
        format!("{pem}{truncated}"),
        pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        pem.replace("MII", "!II"),
    ] {
        assert!(count(&unusable).is_err(), "{unusable}");
    }
}

#[test]
fn the_error_names_the_file_and_not_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let (pem, key) = certificate();
    std::fs::write(&path, &key).unwrap();
    let error = read_cas(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("ca.pem holds no PEM certificate"),
        "{error}"
    );
    std::fs::write(&path, &pem).unwrap();
    assert_eq!(read_cas(&path).unwrap().certificates.len(), 1);
    let error = read_private_key(&path).unwrap_err().to_string();
    assert!(error.ends_with("holds no PEM private key"), "{error}");
    let der = rcgen::KeyPair::generate().unwrap().serialize_der();
    std::fs::write(&path, [&[0x30, 0x82], der.as_slice()].concat()).unwrap();
    let error = read_private_key(&path).unwrap_err().to_string();
    assert!(error.contains("DER"), "{error}");
}
