//! Settings of a server from file, environment and flags.

use std::{fs, path::PathBuf, time::Duration};

use narrows_link::{Error, Settings, Source};

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("a temporary file");
    path
}

fn gather(
    file: Option<&PathBuf>,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Settings, Error> {
    let environment = environment.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let flags = flags.iter().map(|(name, value)| (*name, value.to_string()));
    Settings::gather(file.map(PathBuf::as_path), environment, flags)
}

#[test]
fn each_setting_comes_from_the_last_that_gives_it() {
    let file = file(
        "precedence.toml",
        "tails = [\"a.onnx\"]\n[limits]\nmax_connections = 1\nmax_in_flight = 2\nidle_timeout_ms = 3\n",
    );
    let environment = [
        ("NARROWS_SERVE_LIMITS_MAX_IN_FLIGHT", "20"),
        ("NARROWS_SERVE_LIMITS_IDLE_TIMEOUT_MS", "30"),
        ("HOME", "x"),
    ];
    let settings = gather(Some(&file), &environment, &[("limits.idle_timeout_ms", "300")]).expect("settings");
    let limits = settings.server_options().expect("options").limits;
    assert_eq!(limits.max_connections, 1);
    assert_eq!(limits.max_in_flight, 20);
    assert_eq!(limits.idle_timeout, Duration::from_millis(300));
    assert_eq!(limits.message_timeout, Duration::from_mins(2));
    assert_eq!(settings.tails(), ["a.onnx"]);
    let source = |name| settings.source(name).expect("a setting").clone();
    assert_eq!(source("limits.max_connections"), Source::File(file.clone()));
    assert_eq!(source("limits.max_in_flight"), Source::Environment(environment[0].0.into()));
    assert_eq!(source("limits.idle_timeout_ms"), Source::Flag);
    assert_eq!(source("limits.message_timeout_ms"), Source::Default);
}

#[test]
fn what_is_shown_can_be_read_again() {
    let flags = [
        ("listen", "0.0.0.0:7000"),
        ("tails", "a.onnx,b.onnx"),
        ("profiles", "[\"x,y.nrp\"]"),
        ("log.format", "json"),
    ];
    let settings = gather(None, &[], &flags).expect("settings");
    let shown = settings.to_toml();
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("listen = \"0.0.0.0:7000\"") && line.ends_with("# command line")),
        "{shown}"
    );
    let again = gather(Some(&file("shown.toml", &shown)), &[], &[]).expect("settings");
    assert_eq!(again.tails(), ["a.onnx", "b.onnx"]);
    assert_eq!(again.profiles(), ["x,y.nrp"]);
    assert!(again.logs_json().expect("a format"));
    let values = |text: &str| {
        text.lines().map(|line| line.split('#').next().unwrap_or("").trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&again.to_toml()), values(&shown));
}

#[test]
fn a_wrong_setting_is_named_with_its_origin() {
    let text = |result: Result<Settings, Error>| result.map(|_| ()).expect_err("wrong").to_string();
    let unknown = text(gather(None, &[("NARROWS_SERVE_LIMITS_MAX_CONECTIONS", "1")], &[]));
    assert!(
        unknown.contains("NARROWS_SERVE_LIMITS_MAX_CONECTIONS") && unknown.contains("no such setting"),
        "{unknown}"
    );
    let unknown = text(gather(Some(&file("unknown.toml", "[limits]\nmax_conections = 1")), &[], &[]));
    assert!(unknown.contains("limits.max_conections") && unknown.contains("unknown.toml"), "{unknown}");
    let kind = text(gather(Some(&file("kind.toml", "workers = \"two\"")), &[], &[]));
    assert!(kind.contains("workers") && kind.contains("integer"), "{kind}");
    let number = text(gather(None, &[], &[("workers", "two")]));
    assert!(number.contains("workers (from command line)") && number.contains("two"), "{number}");
    assert!(text(gather(None, &[], &[("limits.patience_ms", "-1")])).contains("below zero"));
    assert!(text(gather(Some(&file("syntax.toml", "= 3")), &[], &[])).contains("syntax.toml"));
    assert!(text(gather(Some(&PathBuf::from("nowhere.toml")), &[], &[])).contains("nowhere.toml"));
    assert!(text(gather(None, &[], &[("limits.max_message_bytes", "5000000000")])).contains("settings"));
}

#[test]
fn files_of_secrets_are_read_and_checked() {
    let options = |flags: &[(&str, &str)]| gather(None, &[], flags).expect("settings").server_options();
    let tokens = file("tokens", "# two\nalpha\n\n  beta \n");
    let options_with = options(&[("auth.tokens_file", tokens.to_str().expect("a name"))]).expect("options");
    assert_eq!(options_with.tokens.len(), 2);
    let empty = file("no-tokens", "# none\n");
    let error = options(&[("auth.tokens_file", empty.to_str().expect("a name"))]).expect_err("no tokens");
    assert!(error.to_string().contains("holds no token"), "{error}");
    let error = options(&[("tls.certificate", "nowhere.pem")]).expect_err("no certificate");
    assert!(error.to_string().contains("nowhere.pem"), "{error}");
    assert!(options(&[("limits.max_connections", "0")]).is_err());
    assert!(options(&[("http", "nonsense")]).is_err());
    assert!(gather(None, &[], &[("listen", "nonsense")]).expect("settings").listen().is_err());
    assert!(gather(None, &[], &[("log.format", "xml")]).expect("settings").logs_json().is_err());
}
