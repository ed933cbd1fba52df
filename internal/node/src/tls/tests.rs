//! What is made of certificate files, good ones and bad ones.

#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;
use crate::test_ca::{CLUSTER, TestCa, Wanted};
#[cfg(unix)]
use crate::test_node::eventually;

fn refusal(files: TlsFiles) -> String {
    Credentials::load(files).unwrap_err().to_string()
}

#[test]
fn good_files_make_credentials() {
    let ca = TestCa::new();
    let credentials = ca.node("n1");
    assert_eq!((credentials.cluster(), credentials.node_name()), (CLUSTER, "n1"));
    assert!(credentials.not_after() > SystemTime::now());
    assert!(credentials.require(CLUSTER, "n1").is_ok());
    let why = credentials.require(CLUSTER, "n2").unwrap_err().to_string();
    assert!(why.contains("/node/n1") && why.contains("/node/n2"), "{why}");
}

#[test]
fn every_complaint_names_the_file_and_the_reason() {
    let ca = TestCa::new();
    let good = ca.node_files(CLUSTER, "n1");
    type Pick = fn(&TlsFiles) -> &PathBuf;
    let cases: [(&str, Pick, &str, &str); 6] = [
        ("missing.pem", |files| &files.certificate, "", "cannot be read"),
        ("empty.pem", |files| &files.certificate, "\n", "holds no certificate"),
        (
            "cut.pem",
            |files| &files.certificate,
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "not valid PEM",
        ),
        ("bad.key", |files| &files.key, "no key here\n", "no private key"),
        ("empty-ca.pem", |files| &files.authorities, "\n", "holds no certificate"),
        (
            "bad-ca.pem",
            |files| &files.authorities,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be an authority",
        ),
    ];
    for (name, pick, content, expected) in cases {
        let path = ca.path(name);
        if !content.is_empty() {
            write_private(&path, content);
        }
        let mut files = good.clone();
        let replaced = pick(&files).clone();
        for each in [&mut files.certificate, &mut files.key, &mut files.authorities] {
            if *each == replaced {
                *each = path.clone();
            }
        }
        let why = refusal(files);
        assert!(why.contains(name) && why.contains(expected), "{name}: {why}");
    }
}

fn write_private(path: &std::path::Path, content: &str) {
    fs::write(path, content).unwrap();
    #[cfg(unix)]
    set_mode(path, 0o600);
}

#[cfg(unix)]
fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_refused_with_the_cure() {
    let ca = TestCa::new();
    let files = ca.node_files(CLUSTER, "n1");
    for mode in [0o640, 0o604, 0o620] {
        set_mode(&files.key, mode);
        let why = refusal(files.clone());
        let cure = format!("chmod 600 {}", files.key.display());
        assert!(why.contains(&cure) && why.contains(&format!("{mode:o}")), "{why}");
    }
    set_mode(&files.key, 0o400);
    let credentials = Credentials::load(files.clone()).unwrap();
    set_mode(&files.key, 0o644);
    credentials.look();
    assert!(notices(&credentials)[0].contains("chmod 600"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = TestCa::new();
    let mut files = ca.node_files(CLUSTER, "n1");
    files.key = ca.node_files(CLUSTER, "n2").key;
    assert!(matches!(Credentials::load(files), Err(TlsError::Unfit(_))));
}

#[test]
fn certificates_outside_their_time_are_refused_with_the_date() {
    let ca = TestCa::new();
    let uris = vec![format!("spiffe://{CLUSTER}/node/n1")];
    let expired = Wanted {
        uris: uris.clone(),
        years: Some((2000, 2001)),
        ..Wanted::default()
    };
    let why = refusal(ca.issue("expired", &expired));
    assert!(
        why.contains("expired.pem") && why.contains("expired on") && why.contains("2001"),
        "{why}"
    );
    let early = Wanted {
        uris,
        years: Some((2100, 2101)),
        ..Wanted::default()
    };
    let why = refusal(ca.issue("early", &early));
    assert!(
        why.contains("early.pem") && why.contains("not valid before") && why.contains("2100"),
        "{why}"
    );
}

#[test]
fn a_node_needs_a_node_certificate() {
    let ca = TestCa::new();
    let why = refusal(ca.client_files("acme", "app"));
    assert!(
        why.contains("needs a node certificate") && why.contains("/tenant/acme/client/app"),
        "{why}"
    );
    let why = refusal(ca.issue("nobody", &Wanted::default()));
    assert!(why.contains("nobody.pem") && why.contains("no identity"), "{why}");
}

fn renewed(name: &str) -> Wanted {
    Wanted {
        uris: vec![format!("spiffe://{CLUSTER}/node/{name}")],
        years: Some((2020, 2090)),
        ..Wanted::default()
    }
}

fn notices(credentials: &Credentials) -> Vec<String> {
    credentials.notices().borrow().clone()
}

#[test]
fn a_look_takes_new_certificates_but_no_other_identity() {
    let ca = TestCa::new();
    let credentials = ca.node("n1");
    let before = credentials.not_after();
    ca.issue("n1", &renewed("n1"));
    credentials.look();
    let after = credentials.not_after();
    assert_ne!(after, before);
    assert!(notices(&credentials).is_empty());

    ca.issue("n1", &renewed("n2"));
    credentials.look();
    let told = notices(&credentials);
    assert!(told.len() == 1 && told[0].contains("/node/n2"), "{told:?}");
    fs::remove_file(ca.path("n1.key")).unwrap();
    credentials.look();
    let told = notices(&credentials);
    assert!(told.len() == 1 && told[0].contains("n1.key"), "{told:?}");
    assert_eq!((credentials.node_name(), credentials.not_after()), ("n1", after));

    ca.issue("n1", &renewed("n1"));
    credentials.look();
    assert!(notices(&credentials).is_empty());
}

#[test]
fn files_that_are_put_back_are_no_news() {
    let ca = TestCa::new();
    let files = ca.node_files(CLUSTER, "n1");
    let credentials = Credentials::load(files.clone()).unwrap();
    let good = fs::read(&files.certificate).unwrap();
    fs::write(&files.certificate, "half").unwrap();
    credentials.look();
    assert_eq!(notices(&credentials).len(), 1);
    let in_force = credentials.server_config();
    fs::write(&files.certificate, good).unwrap();
    credentials.look();
    assert!(notices(&credentials).is_empty());
    assert!(Arc::ptr_eq(&in_force, &credentials.server_config()));
}

/// A secret as Kubernetes mounts it: its files are links into `..data`, which is a link to the directory of a version.
#[cfg(unix)]
struct Mounted {
    ca: TestCa,
}

#[cfg(unix)]
impl Mounted {
    const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

    fn new() -> Mounted {
        let mounted = Mounted { ca: TestCa::new() };
        fs::create_dir(mounted.path("")).unwrap();
        let files = mounted.ca.node_files(CLUSTER, "n1");
        mounted.put("..one", &files);
        for file in Mounted::FILES {
            std::os::unix::fs::symlink(PathBuf::from("..data").join(file), mounted.path(file)).unwrap();
        }
        mounted
    }

    fn path(&self, file: &str) -> PathBuf {
        self.ca.path("mounted").join(file)
    }

    fn files(&self) -> TlsFiles {
        let [certificate, key, authorities] = Mounted::FILES.map(|file| self.path(file));
        TlsFiles {
            certificate,
            key,
            authorities,
            revoked: None,
        }
    }

    /// Puts a new version in force in one step, and takes the former one away.
    fn put(&self, version: &str, files: &TlsFiles) {
        fs::create_dir(self.path(version)).unwrap();
        let from = [&files.certificate, &files.key, &files.authorities];
        for (from, to) in from.into_iter().zip(Mounted::FILES) {
            fs::copy(from, self.path(version).join(to)).unwrap();
        }
        let former = fs::canonicalize(self.path("..data")).ok();
        std::os::unix::fs::symlink(version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if let Some(former) = former {
            fs::remove_dir_all(former).unwrap();
        }
    }

    fn renew(&self) {
        let files = self.ca.issue("n1", &renewed("n1"));
        self.put("..two", &files);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_mounted_secret_that_is_swapped_is_found_although_nothing_tells_of_it() {
    let mounted = Mounted::new();
    let credentials = Credentials::load(mounted.files()).unwrap();
    let before = credentials.not_after();
    let keeping = tokio::spawn(credentials.clone().keep());
    // More than once, so that it is no look from before.
    mounted.renew();
    eventually("the new files are in force", || credentials.not_after() != before).await;
    let of_another = TestCa::called("another CA");
    mounted.put("..three", &of_another.node_files(CLUSTER, "n1"));
    let client = of_another.client_files("acme", "app");
    eventually("the new authority is trusted", || lets_in(&credentials, &client)).await;
    assert!(!lets_in(&credentials, &mounted.ca.client_files("acme", "app")));
    assert!(notices(&credentials).is_empty(), "{:?}", notices(&credentials));
    keeping.abort();
}

#[cfg(unix)]
#[tokio::test]
async fn a_mounted_secret_that_is_swapped_is_found_when_asked_for() {
    let mounted = Mounted::new();
    let credentials = Credentials::load(mounted.files()).unwrap();
    let before = credentials.not_after();
    let keeping = tokio::spawn(credentials.clone().keep());
    mounted.renew();
    credentials.ask_for_look();
    eventually("the new files are in force", || credentials.not_after() != before).await;
    keeping.abort();
}

#[test]
fn a_certificate_that_has_expired_is_never_put_in_the_place_of_a_good_one() {
    let ca = TestCa::new();
    let credentials = ca.node("n1");
    let in_force = credentials.server_config();
    let expired = Wanted {
        years: Some((2000, 2001)),
        ..renewed("n1")
    };
    ca.issue("n1", &expired);
    credentials.look();
    let told = notices(&credentials);
    assert!(
        told.len() == 1 && told[0].contains("expired on") && told[0].contains("the former ones stay in force"),
        "{told:?}"
    );
    assert!(Arc::ptr_eq(&in_force, &credentials.server_config()) && !credentials.is_expired());
}

#[test]
fn the_end_of_a_certificate_is_told_in_time_and_once_it_is_over() {
    let ca = TestCa::new();
    ca.issue("n1", &renewed("n1"));
    let credentials = Credentials::load(ca.files("n1")).unwrap();
    let before = |days: u64| credentials.not_after() - Duration::from_secs(days * 24 * 60 * 60);
    credentials.look_at(before(40));
    assert!(notices(&credentials).is_empty() && !credentials.is_expired());
    credentials.look_at(before(20));
    let told = notices(&credentials);
    assert!(
        told.len() == 1 && told[0].contains("expires on Jan  1") && told[0].contains("2090"),
        "{told:?}"
    );
    credentials.look_at(credentials.not_after() + Duration::from_secs(1));
    assert!(notices(&credentials)[0].contains("expired on") && credentials.is_expired());
    credentials.look();
    assert!(notices(&credentials).is_empty() && !credentials.is_expired());
}

#[test]
fn a_list_that_cannot_be_used_leaves_the_former_one_in_force_and_lets_certificates_be_renewed() {
    let ca = TestCa::new();
    let files = TlsFiles {
        revoked: Some(ca.path("crl.pem")),
        ..ca.node_files(CLUSTER, "n1")
    };
    assert!(
        refusal(files.clone()).contains("crl.pem"),
        "one that is configured must be there"
    );
    let (one, two) = (ca.client_files("acme", "one"), ca.client_files("acme", "two"));
    ca.revoke(&[&one], 2090);
    let credentials = Credentials::load(files).unwrap();
    let lists = || credentials.current.load().lists().ders.clone();
    let good = lists();
    assert_eq!(good.len(), 1);

    ca.revoke(&[&one, &two], 2001);
    credentials.look();
    let told = notices(&credentials);
    assert!(
        told.len() == 1 && told[0].contains("to be replaced by") && told[0].contains("2001"),
        "{told:?}"
    );
    fs::write(ca.path("crl.pem"), "no list").unwrap();
    ca.issue("n1", &renewed("n1"));
    let before = credentials.not_after();
    credentials.look();
    let told = notices(&credentials);
    assert!(told.len() == 1 && told[0].contains("BEGIN X509 CRL"), "{told:?}");
    assert_eq!(lists(), good);
    assert_ne!(
        credentials.not_after(),
        before,
        "the new certificate is in force all the same"
    );

    ca.revoke(&[&one, &two], 2090);
    credentials.look();
    assert!(notices(&credentials).is_empty());
    assert_ne!(lists(), good);
}

#[test]
fn a_list_whose_time_is_over_stays_in_use_and_is_told() {
    let ca = TestCa::new();
    ca.revoke(&[&ca.client_files("acme", "one")], 2001);
    let files = TlsFiles {
        revoked: Some(ca.path("crl.pem")),
        ..ca.node_files(CLUSTER, "n1")
    };
    let credentials = Credentials::load(files).unwrap();
    credentials.look();
    let told = notices(&credentials);
    assert!(told.len() == 1 && told[0].contains("stays in use"), "{told:?}");
    assert_eq!(credentials.current.load().lists().ders.len(), 1);
}

fn append(from: &std::path::Path, to: &std::path::Path) {
    let both = fs::read_to_string(to).unwrap() + fs::read_to_string(from).unwrap().as_str();
    fs::write(to, both).unwrap();
}

fn lets_in(credentials: &Credentials, client: &TlsFiles) -> bool {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, UnixTime};
    use rustls::server::danger::ClientCertVerifier;
    let certificate = CertificateDer::from_pem_file(&client.certificate).unwrap();
    let material = credentials.current.load();
    let judged = material.callers.verify_client_cert(&certificate, &[], UnixTime::now());
    judged.is_ok()
}

#[test]
fn while_the_authority_changes_each_of_both_has_its_list() {
    let (old, new) = (TestCa::called("CA, 1"), TestCa::called("CA, 2"));
    let files = TlsFiles {
        revoked: Some(old.path("crl.pem")),
        ..old.node_files(CLUSTER, "n1")
    };
    let clients = |ca: &TestCa| (ca.client_files("acme", "good"), ca.client_files("acme", "bad"));
    let ((old_good, old_bad), (new_good, new_bad)) = (clients(&old), clients(&new));
    old.revoke(&[&old_bad], 2090);
    new.revoke(&[&new_bad], 2090);
    let credentials = Credentials::load(files).unwrap();
    append(&new.path("ca.pem"), &old.path("ca.pem"));
    append(&new.path("crl.pem"), &old.path("crl.pem"));
    credentials.look();
    assert!(notices(&credentials).is_empty(), "{:?}", notices(&credentials));
    let judged = [&old_good, &old_bad, &new_good, &new_bad].map(|client| lets_in(&credentials, client));
    assert_eq!(judged, [true, false, true, false]);
}

#[test]
fn an_authority_with_the_name_of_one_that_has_a_list_is_not_taken_and_nobody_is_cut_off() {
    let (old, namesake) = (TestCa::called("CA"), TestCa::called("CA"));
    let files = TlsFiles {
        revoked: Some(old.path("crl.pem")),
        ..old.node_files(CLUSTER, "n1")
    };
    let client = old.client_files("acme", "good");
    old.revoke(&[], 2090);
    namesake.revoke(&[], 2090);
    let credentials = Credentials::load(files.clone()).unwrap();
    append(&namesake.path("ca.pem"), &old.path("ca.pem"));
    append(&namesake.path("crl.pem"), &old.path("crl.pem"));
    credentials.look();
    let told = notices(&credentials);
    let is_told = |word: &str| told.iter().filter(|notice| notice.contains(word)).count();
    assert_eq!(
        (is_told("need different subjects"), is_told("`CN=CA`")),
        (2, 2),
        "{told:?}"
    );
    assert!(lets_in(&credentials, &client));
    assert!(refusal(files).contains("need different subjects"));

    // In the place of the old one it may come, and its list with it: the files fit together.
    for file in ["ca.pem", "crl.pem"] {
        fs::copy(namesake.path(file), old.path(file)).unwrap();
    }
    let own = namesake.node_files(CLUSTER, "n1");
    let files = old.files("n1");
    fs::copy(own.certificate, files.certificate).unwrap();
    fs::copy(own.key, files.key).unwrap();
    credentials.look();
    assert!(notices(&credentials).is_empty(), "{:?}", notices(&credentials));
    assert!(lets_in(&credentials, &namesake.client_files("acme", "good")) && !lets_in(&credentials, &client));
}
