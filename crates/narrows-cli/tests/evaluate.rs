//! `narrows calibrate --labels`, `bench adapt`, `choose` and `eval` on the demo network.

mod common;

use std::fs;

use common::*;
use npyz::npz::NpzArchive;
use serde_json::{Value, json};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/model.onnx");
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/fashion-resnet/test-1000.npz");

/// The first `count` images and labels, as files of their own.
fn images(folder: &Folder, count: usize) {
    let array = |name: &str| -> Vec<u8> {
        let mut archive = NpzArchive::open(IMAGES).unwrap();
        archive.by_name(name).unwrap().unwrap().into_vec().unwrap()
    };
    let pixels = array("images").into_iter().take(count * 28 * 28);
    folder.write("images.npy", &npy("|u1", "False", &format!("({count}, 28, 28)"), pixels));
    let labels = array("labels").into_iter().take(count);
    folder.write("labels.npy", &npy("|u1", "False", &format!("({count},)"), labels));
}

/// A table as `calibrate --labels` writes it, with these points: bytes and accuracy.
fn table(points: &[(f64, f64)]) -> Vec<u8> {
    let point = |&(bytes, top1): &(f64, f64)| {
        json!({
            "coding": "profile", "levels": 2 + bytes as u64 / 100, "range": "samples", "clip": "99.5", "profile": "00",
            "bytes_mean": bytes, "bytes_high": (1.15 * bytes) as u64, "top1_percent": top1,
            "agreement_percent": top1, "encode_us": 200.0, "decode_us": 100.0, "pareto": true,
        })
    };
    let points: Vec<Value> = points.iter().map(point).collect();
    let table = json!({
        "format": "narrows-operating-points", "version": 1, "cut": "layer2", "shape": [64, 14, 14],
        "samples_fitted": 200, "samples_measured": 800, "raw_bytes": 50176, "top1_percent": 94.1,
        "tail_us": 500.0, "points": points,
    });
    serde_json::to_vec(&table).unwrap()
}

const POINTS: [(f64, f64); 6] =
    [(243.0, 72.9), (379.0, 88.5), (454.0, 90.75), (634.0, 92.5), (890.0, 93.6), (1136.0, 94.1)];

#[test]
fn labels_make_a_table_of_operating_points_with_their_profiles() {
    let folder = Folder::new("operating-points");
    images(&folder, 40);
    folder.succeed(&["split", MODEL, "--at", "layer3", "-o", "halves"]);
    let command = [
        "calibrate",
        "images.npy",
        "--head",
        "halves/head.onnx",
        "--tail",
        "halves/tail.onnx",
        "--labels",
        "labels.npy",
        "-o",
        "cut",
    ];
    let table = folder.json(&command);
    assert_eq!(
        table,
        serde_json::from_slice::<Value>(&fs::read(folder.path("cut/operating-points.json")).unwrap())
            .unwrap()
    );
    assert_eq!((&table["samples_fitted"], &table["samples_measured"]), (&10.into(), &30.into()));
    let points = table["points"].as_array().unwrap();
    let number = |point: &Value, key: &str| point[key].as_f64().unwrap();
    let mut best = f64::NEG_INFINITY;
    for pair in points.windows(2) {
        assert!(number(&pair[0], "bytes_mean") <= number(&pair[1], "bytes_mean"));
    }
    for point in points {
        let worth = number(point, "top1_percent") > best;
        assert_eq!(point["pareto"], worth, "{point}");
        best = best.max(number(point, "top1_percent"));
        assert!(number(point, "bytes_high") >= 0.8 * number(point, "bytes_mean"));
        if let (true, Some(profile)) = (worth, point["profile"].as_str()) {
            let bytes = fs::read(folder.path(&format!("cut/{profile}.nrp"))).unwrap();
            assert_eq!(narrows::Profile::from_bytes(&bytes).unwrap().id().to_string(), profile);
        }
    }
    // Every coding of the same symbols has the same accuracy.
    let of = |coding: &str| {
        let same =
            |point: &&Value| point["levels"] == 4 && point["clip"] == "99.5" && point["coding"] == coding;
        points.iter().find(same).unwrap()
    };
    for coding in ["contexts", "order-0"] {
        assert_eq!(of(coding)["top1_percent"], of("profile")["top1_percent"]);
        assert!(number(of("profile"), "bytes_mean") < number(of(coding), "bytes_mean"));
    }
    assert!(fs::read_to_string(folder.path("cut/rate-accuracy.svg")).unwrap().starts_with("<svg"));
    folder.fail(USAGE, &command);
}

#[test]
fn labels_that_do_not_fit_are_refused_with_a_reason() {
    let folder = Folder::new("wrong-labels");
    images(&folder, 9);
    folder.succeed(&["split", MODEL, "--at", "layer3", "-o", "halves"]);
    folder.write("eight.npy", &npy("|u1", "False", "(8,)", [0; 8]));
    folder.write("negative.npy", &npy("<i4", "False", "(9,)", [0xff; 36]));
    folder.write("float.npy", &npy("<f4", "False", "(9,)", [0; 36]));
    folder.write("cut-off.npy", &npy("<i4", "False", "(9,)", [0; 20]));
    folder.write("huge.npy", &npy("<i8", "False", "(1000000000000,)", [0; 20]));
    for labels in ["eight.npy", "negative.npy", "float.npy", "cut-off.npy", "huge.npy", "images.npy"] {
        folder.fail(
            DATA,
            &[
                "calibrate",
                "images.npy",
                "--head",
                "halves/head.onnx",
                "--tail",
                "halves/tail.onnx",
                "--labels",
                labels,
                "-o",
                "cut",
            ],
        );
        assert!(!folder.path("cut").exists());
    }
}

#[test]
fn the_controller_is_worth_it_on_links_it_was_not_tuned_on() {
    let folder = Folder::new("adapt");
    folder.write("points.json", &table(&POINTS));
    let report = folder.json(&["bench", "adapt", "--table", "points.json", "--seeds", "8", "--svg", "a.svg"]);
    let traces = report["traces"].as_array().unwrap();
    assert_eq!(traces.len(), 5);
    for trace in traces {
        assert_eq!(trace["verdict"]["holds"], true, "{trace}");
        let useful = |who: &Value| who["useful_percent"].as_f64().unwrap();
        let best = trace["fixed"].as_array().unwrap().iter().map(useful).fold(0.0, f64::max);
        // Nobody beats foresight by much, and the controller stays with the best fixed setting, which nobody knows.
        assert!(useful(&trace["controller"]) > best - 1.0, "{trace}");
        assert!(useful(&trace["controller"]) < useful(&trace["foresight"]) + 1.0, "{trace}");
    }
    assert!(fs::read_to_string(folder.path("a.svg")).unwrap().trim_end().ends_with("</svg>"));
    let again = folder.json(&["bench", "adapt", "--table", "points.json", "--seeds", "8"]);
    assert_eq!(again["traces"], report["traces"]);
}

#[test]
fn recorded_links_are_read_or_refused() {
    let folder = Folder::new("recorded");
    folder.write("points.json", &table(&POINTS));
    let deliveries: Vec<String> = (0..2000).map(|n| (n * 12 + n % 7).to_string()).collect();
    folder.write("up.trace", deliveries.join("\n").as_bytes());
    let run = |trace| {
        ["bench", "adapt", "--table", "points.json", "--seeds", "1", "--links", "steps", "--trace", trace]
    };
    let report = folder.json(&run("up.trace"));
    assert_eq!(report["traces"][1]["link"], "up.trace");
    for wrong in ["", "12\nsoon\n", "0\n1000000\n", "18446744073709551615\n", "-3\n"] {
        folder.write("wrong.trace", wrong.as_bytes());
        folder.fail(DATA, &run("wrong.trace"));
    }
    let mut endless: Value = serde_json::from_slice(&table(&POINTS)).unwrap();
    endless["tail_us"] = 1e300.into();
    folder.write("endless.json", endless.to_string().as_bytes());
    folder.fail(CONFIGURATION, &["bench", "adapt", "--table", "endless.json"]);
    // A link that carries next to nothing ends too: nobody is in time.
    let dead = folder.json(&["bench", "adapt", "--table", "points.json", "--seeds", "1", "--rate", "0.001"]);
    assert_eq!(dead["traces"][0]["controller"]["misses_percent"], 100.0);
    folder.write("other.json", b"{\"format\": \"something\", \"version\": 1}");
    folder.fail(CONFIGURATION, &["bench", "adapt", "--table", "other.json"]);
    folder.write("later.json", b"{\"format\": \"narrows-operating-points\", \"version\": 2}");
    let said = folder.fail(CONFIGURATION, &["bench", "adapt", "--table", "later.json"]);
    assert!(said.contains("version is 2"), "{said}");
}

#[test]
fn the_choice_follows_the_link_and_the_machines() {
    let folder = Folder::new("choose");
    images(&folder, 24);
    let choose = |more: &[&str]| {
        let common =
            ["choose", MODEL, "--inputs", "images.npy", "--labels", "labels.npy", "--cuts", "layer2,layer3"];
        folder.json(&[&common, more].concat())
    };
    // A device without a link, and one that is no computer at all.
    let alone = choose(&["--rate", "1", "--svg", "choice.svg"]);
    assert_eq!(alone["ways"][0]["cut"], "(all on the device)");
    let slow = choose(&["--rate", "1G", "--device-time", "100s"]);
    assert_eq!(slow["ways"][0]["cut"], "(all in the cloud)");
    for report in [&alone, &slow] {
        let ways = report["ways"].as_array().unwrap();
        let latencies: Vec<f64> = ways.iter().map(|way| way["latency_ms"].as_f64().unwrap()).collect();
        assert!(latencies.is_sorted());
        assert!(ways.iter().any(|way| way["cut"] == "layer2" && way["sent"] == "float32"));
        assert!(ways.iter().all(|way| way["drop"].as_f64().unwrap() <= 1.0 + 1e-9));
        let segments = report["best_by_rate"].as_array().unwrap();
        assert_eq!((&segments[0]["from"], &segments.last().unwrap()["to"]), (&0.0.into(), &Value::Null));
    }
    assert!(
        fs::read_to_string(folder.path("choice.svg")).unwrap().contains("don&apos;t split")
            || fs::read_to_string(folder.path("choice.svg")).unwrap().contains("don't split")
    );
    folder.fail(USAGE, &["choose", MODEL, "--inputs", "images.npy", "--cuts", "nowhere"]);
    folder.fail(DATA, &["choose", MODEL, "--inputs", "images.npy", "--labels", "images.npy"]);
}

/// The evaluation that is stopped, and asked for again.
fn eval(more: &[&'static str]) -> Vec<&'static str> {
    let common = [
        "eval",
        MODEL,
        "--data",
        "images.npy",
        "--labels",
        "labels.npy",
        "--cuts",
        "layer3",
        "--bits",
        "2,4",
        "-o",
        "report",
    ];
    [&common, more].concat()
}

#[test]
fn an_evaluation_that_was_stopped_goes_on_and_ends_the_same() {
    let folder = Folder::new("eval");
    images(&folder, 16);
    let sizes = |report: &Value| -> Vec<(String, u64, String, String)> {
        let points = report["cuts"][0]["points"].as_array().unwrap().iter();
        let text = |value: &Value| value.to_string();
        let key = |p: &Value| {
            (
                text(&p["method"]),
                p["bits"].as_u64().unwrap(),
                text(&p["bytes_mean"]),
                text(&p["top1_percent"]),
            )
        };
        points.map(key).collect()
    };
    let first = folder.json(&eval(&[]));
    let whole = sizes(&first);
    assert_eq!(whole.len(), 7 * 2 + 2);
    // As if it had been stopped: some points are gone, and one was half written.
    let points = folder.path("report/points");
    let mut files: Vec<_> = fs::read_dir(&points).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), whole.len());
    files[..5].iter().for_each(|file| fs::remove_file(file).unwrap());
    fs::write(&files[5], "{\"cut\": \"lay").unwrap();
    let kept = fs::metadata(&files[9]).unwrap().modified().unwrap();
    assert_eq!(sizes(&folder.json(&eval(&[]))), whole);
    assert_eq!(fs::metadata(&files[9]).unwrap().modified().unwrap(), kept, "a point was measured twice");
    // Everything at the same Q carries the same symbols.
    let top1 =
        |method: &str| whole.iter().find(|point| point.0.contains(method) && point.1 == 4).unwrap().3.clone();
    for method in ["order-0", "tans", "reference", "packed", "zlib"] {
        assert_eq!(top1(method), top1("contexts"));
    }
    let page = fs::read_to_string(folder.path("report/report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 5);
    // The page needs nothing else.
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("<link"));
    // Other inputs are another evaluation.
    folder.fail(USAGE, &eval(&["--limit", "12"]));
    folder.json(&eval(&["--limit", "12", "--force"]));
}
