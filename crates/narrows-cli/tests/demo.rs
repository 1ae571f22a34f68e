//! `narrows demo` end to end, in its two processes.

use std::process::Command;

use narrows::{CoderChoice, Decoder, EncodeOptions, Encoder, LayoutChoice, TensorView};
use serde_json::Value;

const CUTS: [&str; 3] = ["layer1", "layer2", "layer3"];
const BIT_WIDTHS: [u64; 5] = [2, 3, 4, 6, 8];
const METHODS: [&str; 4] = ["packed", "reference", "order0", "default"];

/// The report of a demo over so few images that tests are quick; it is made once.
fn report() -> &'static Value {
    static REPORT: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    REPORT.get_or_init(|| {
        let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["demo", "--images", "20", "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

fn row(cut: &str, q: u64, method: &str) -> &'static Value {
    let rows = report()["rows"].as_array().unwrap();
    let mut matching =
        rows.iter().filter(|row| row["cut"] == cut && row["q"] == q && row["method"] == method);
    let row = matching.next().unwrap_or_else(|| panic!("no row {cut} {q} {method}"));
    assert!(matching.next().is_none(), "two rows {cut} {q} {method}");
    row
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("no number {field} in {row}"))
}

fn groups() -> impl Iterator<Item = (&'static str, u64)> {
    CUTS.into_iter().flat_map(|cut| BIT_WIDTHS.map(|q| (cut, q)))
}

#[test]
fn the_report_has_a_row_for_every_cut_and_bit_width_and_method() {
    let fields: Vec<_> = report().as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["images", "model", "rows"]);
    assert_eq!(report()["images"], 20);
    for cut in CUTS {
        row(cut, 32, "raw");
    }
    for (cut, q) in groups() {
        for method in METHODS {
            row(cut, q, method);
        }
    }
    let rows = report()["rows"].as_array().unwrap();
    assert_eq!(rows.len(), CUTS.len() * (1 + BIT_WIDTHS.len() * METHODS.len()));
    for row in rows {
        let fields: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "bytes_per_image",
            "cut",
            "decode_us",
            "encode_us",
            "link_ms",
            "method",
            "q",
            "ratio",
            "top1",
            "top1_delta",
        ];
        assert_eq!(fields, expected);
        assert!(number(row, "encode_us") > 0.0 && number(row, "decode_us") > 0.0, "{row}");
    }
}

#[test]
fn the_default_is_smaller_than_the_reference_and_no_larger_than_order_0() {
    for (cut, q) in groups() {
        let [reference, order_0, default] =
            ["reference", "order0", "default"].map(|method| number(row(cut, q, method), "bytes_per_image"));
        assert!(default < reference, "{cut} {q}: {default} {reference}");
        assert!(default <= order_0 * 1.005, "{cut} {q}: {default} {order_0}");
    }
}

#[test]
fn methods_that_send_the_same_symbols_are_as_accurate() {
    for (cut, q) in groups() {
        let deltas = METHODS.map(|method| number(row(cut, q, method), "top1_delta"));
        assert!(deltas.iter().all(|&delta| delta == deltas[0]), "{cut} {q}: {deltas:?}");
    }
}

#[test]
fn raw_features_lose_nothing_but_a_header() {
    for cut in CUTS {
        let raw = row(cut, 32, "raw");
        assert_eq!(number(raw, "top1_delta"), 0.0);
        assert!((0.99..1.0).contains(&number(raw, "ratio")), "{raw}");
    }
}

#[test]
fn link_time_is_the_bits_over_the_rate() {
    for cut in CUTS {
        let raw = row(cut, 32, "raw");
        let expected = number(raw, "bytes_per_image") * 8.0 / 143.6;
        assert!((number(raw, "link_ms") / expected - 1.0).abs() < 0.001, "{raw}");
    }
}

/// The demo compares logits; this compares what they are made of.
#[test]
fn methods_at_one_bit_width_decode_to_the_same_features() {
    let features: Vec<f32> = (0_u32..32 * 14 * 14)
        .map(|i| ((f64::from(i) * 0.37).sin() * f64::from(i % 97)).max(0.0) as f32)
        .collect();
    let view = TensorView::new(&features, &[32, 14, 14]).unwrap();
    for bits in BIT_WIDTHS.map(|bits| bits as u8) {
        let natural =
            |coder| EncodeOptions { layout: LayoutChoice::Natural, coder, ..EncodeOptions::bits(bits) };
        let methods = [
            natural(CoderChoice::Packed),
            EncodeOptions::reference(bits),
            natural(CoderChoice::Rans),
            EncodeOptions::bits(bits),
        ];
        let decoded = methods.map(|options| {
            let frame = Encoder::new(options).unwrap().encode(&view).unwrap();
            Decoder::new().decode(&frame).unwrap().to_le_bytes()
        });
        assert!(decoded.iter().all(|bytes| *bytes == decoded[0]), "{bits} bits");
    }
}

#[test]
fn a_cut_that_is_none_is_a_usage_error_with_a_proposal() {
    let output = Command::new(env!("CARGO_BIN_EXE_narrows"))
        .args(["demo", "--images", "1", "--cuts", "layer22"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("did you mean `layer2`?"), "{message}");
}
