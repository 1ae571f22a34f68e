//! What the program says of its work, to people and to scripts.

mod common;

use std::fs;
use std::process::Stdio;

use common::*;
use serde_json::Value;

#[test]
fn options_that_contradict_each_other_are_wrong_usage() {
    let folder = Folder::new("contradictions");
    folder.write("x.npy", &waves_npy());
    for options in [
        &["--bits", "0"][..],
        &["--bits", "9"],
        &["--clip", "half"],
        &["--clip", "30"],
        &["--coder", "tans:100"],
        &["--lossless", "--bits", "3"],
        &["--profile", "p.nrp", "--clip", "mse"],
        &["--layout", "csr", "--coder", "tans"],
        &["--layout", "planes", "--coder", "packed"],
    ] {
        folder.fail(USAGE, &[&["encode", "x.npy"], options].concat());
    }
}

#[test]
fn errors_are_json_where_results_are() {
    let folder = Folder::new("json-errors");
    folder.frame("x.nrw");
    let output = folder.narrows(&["decode", "x.nrw", "--max-elements", "1", "--json"]);
    let error = error_of(&output);
    assert_eq!((output.status.code(), &error["code"]), (Some(DATA), &Value::from(DATA)));
    assert!(error["message"].as_str().unwrap().contains("x.nrw"));
    assert!(error["causes"][0].as_str().unwrap().contains("limit"));
    assert!(error["hint"].as_str().unwrap().contains("--max-elements"));
    let output = folder.narrows(&["--json", "decode", "--nonsense"]);
    assert_eq!((output.status.code(), &error_of(&output)["code"]), (Some(USAGE), &Value::from(USAGE)));
}

#[test]
fn the_report_of_data_on_standard_output_goes_beside_it() {
    let output = feed(&["encode", "-", "-o", "-", "--json"], &waves_npy());
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(report["frames"][0]["bytes"], output.stdout.len());
    assert_eq!(report["frames"][0]["output"], Value::Null);
}

#[test]
fn quiet_says_nothing_of_what_went_well() {
    let folder = Folder::new("quiet");
    folder.write("x.npy", &waves_npy());
    for args in [
        &["encode", "x.npy"][..],
        &["decode", "x.nrw", "-o", "y.npy"],
        &["calibrate", "x.npy", "-o", "x.nrp"],
    ] {
        let output = folder.succeed(&[args, &["--quiet"]].concat());
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn encode_reports_what_it_wrote() {
    let folder = Folder::new("encode-json");
    folder.write("x.npy", &waves_npy());
    let report = folder.json(&["encode", "x.npy", "--check"]);
    let frame = &report["frames"][0];
    assert_eq!(frame["bytes"], fs::metadata(folder.path("x.nrw")).unwrap().len());
    assert_eq!(
        (&frame["dtype"], &frame["shape"], &frame["raw_bytes"]),
        (&"f32".into(), &[8, 6, 7][..].into(), &1344.into())
    );
    for key in ["ratio", "bits_per_element", "max_error", "mse", "psnr_db"] {
        assert!(frame[key].is_f64(), "{key}: {frame}");
    }
}

#[test]
fn inspect_accounts_for_every_byte() {
    let folder = Folder::new("inspect");
    folder.write("x.npy", &waves_npy());
    folder.write("c.npy", &npy("<f4", "False", "(500,)", [0; 2000]));
    for (name, file, options) in [
        ("default", "x.npy", &[][..]),
        ("lossless", "x.npy", &["--lossless"]),
        ("csr", "x.npy", &["--layout", "csr"]),
        ("channels", "x.npy", &["--per-channel"]),
        ("packed", "x.npy", &["--coder", "packed"]),
        ("tans", "x.npy", &["--coder", "tans:256"]),
        ("constant", "c.npy", &[]),
    ] {
        let output = format!("{name}.nrw");
        folder.succeed(&[&["encode", file, "-o", &output], options].concat());
        let report = folder.json(&["inspect", &output]);
        let frame = &report["frames"][0];
        let parts: u64 =
            frame["parts"].as_array().unwrap().iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
        assert_eq!(parts, fs::metadata(folder.path(&output)).unwrap().len(), "{name}: {frame}");
        for key in ["version", "elements", "content", "layout", "streams", "entropy_bits_per_symbol"] {
            assert!(frame.get(key).is_some(), "{key} of {name}");
        }
    }
}

#[test]
fn inspect_tells_people_the_same() {
    let folder = Folder::new("inspect-text");
    folder.frame("x.nrw");
    let said = text(&folder.succeed(&["inspect", "x.nrw"]).stdout);
    for word in ["f32 8x6x7", "16 levels", "bits/element", "bits/symbol", "symbols", "checksum", "percent"] {
        assert!(said.contains(word), "{word} is missing: {said}");
    }
}

#[test]
fn the_plan_marks_what_encode_chooses_and_estimates_it_well() {
    let folder = Folder::new("plan");
    let values: Vec<f32> =
        (0..32 * 16 * 16).map(|i| ((i as f32 * 0.09).sin() - 0.2 + (i % 7) as f32 * 0.04).max(0.0)).collect();
    folder.write("x.npy", &npy("<f4", "False", "(32, 16, 16)", values.iter().flat_map(|x| x.to_le_bytes())));
    let plan = folder.json(&["plan", "x.npy", "--bits", "3"]);
    let encoded = folder.json(&["encode", "x.npy", "--bits", "3"]);
    let candidates = plan["candidates"].as_array().unwrap();
    let chosen: Vec<&Value> = candidates.iter().filter(|candidate| candidate["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!(chosen[0]["bytes"], encoded["frames"][0]["bytes"]);
    for name in [
        "raw",
        "packed",
        "order-0",
        "contexts",
        "csr, Algorithm 1",
        "csr, best divisor",
        "csr, separate",
        "lossless",
    ] {
        assert!(candidates.iter().any(|candidate| candidate["name"] == name), "{name}");
    }
    for candidate in candidates.iter().filter(|candidate| candidate["bytes"].as_u64() > Some(1000)) {
        let error = candidate["estimate_error_percent"].as_f64().unwrap_or(0.0);
        assert!(error.abs() <= 1.0, "{candidate}");
    }
}

#[test]
fn each_candidate_of_the_plan_is_had_with_the_options_it_names() {
    let folder = Folder::new("plan-options");
    folder.write("x.npy", &waves_npy());
    let plan = folder.json(&["plan", "x.npy"]);
    for candidate in plan["candidates"].as_array().unwrap() {
        let options: Vec<&str> = candidate["options"].as_str().unwrap().split_whitespace().collect();
        if options.is_empty() {
            continue;
        }
        let encoded = folder.json(&[&["encode", "x.npy", "--force"], options.as_slice()].concat());
        assert_eq!(encoded["frames"][0]["bytes"], candidate["bytes"], "{candidate}");
    }
}

#[test]
fn the_reshape_curve_visits_every_divisor_and_is_drawn() {
    let folder = Folder::new("reshape");
    folder.write("x.npy", &waves_npy());
    let plan = folder.json(&["plan", "x.npy", "--svg", "x.svg"]);
    // 336 = 2^4 * 3 * 7 has 20 divisors.
    assert_eq!(plan["reshape"]["every_divisor"].as_array().unwrap().len(), 20);
    assert!(plan["reshape"]["chosen_rows"].is_u64());
    let svg = fs::read_to_string(folder.path("x.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("Algorithm 1") && svg.trim_end().ends_with("</svg>"));
    folder.fail(USAGE, &["plan", "x.npy", "--svg", "x.svg"]);
}

#[test]
fn a_constant_tensor_is_planned_without_a_curve() {
    let folder = Folder::new("plan-constant");
    folder.write("c.npy", &npy("<f4", "False", "(4, 5, 5)", [0; 400]));
    let plan = folder.json(&["plan", "c.npy"]);
    assert_eq!(plan["reshape"], Value::Null);
    folder.fail(DATA, &["plan", "c.npy", "--svg", "c.svg"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = Folder::new("closed-pipe");
    folder.frame("x.nrw");
    let names = vec!["x.nrw"; 2000];
    let mut child = command(&[&["inspect"], names.as_slice()].concat())
        .current_dir(&folder.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn the_help_of_every_command_shows_examples() {
    let commands = [
        "encode",
        "decode",
        "inspect",
        "plan",
        "calibrate",
        "choose",
        "cuts",
        "split",
        "serve",
        "run",
        "demo",
        "eval",
        "completions",
    ];
    for name in commands {
        let output = command(&[name, "--help"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert!(text(&output.stdout).contains("Examples"), "{name}");
    }
    let output = command(&["--help"]).output().unwrap();
    let help = text(&output.stdout);
    assert!(output.status.success() && commands.iter().all(|name| help.contains(name)), "{help}");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = command(&["completions", shell]).output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains("calibrate"), "{shell}");
    }
}

#[test]
fn no_command_and_unknown_commands_are_wrong_usage() {
    for args in [&[][..], &["compress"]] {
        assert_eq!(command(args).output().unwrap().status.code(), Some(USAGE));
    }
}
