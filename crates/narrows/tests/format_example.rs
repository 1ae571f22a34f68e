//! The worked example of `docs/format.md`.

use narrows::{CoderChoice, EncodeOptions, Encoder, TensorView};

#[test]
fn the_worked_example_is_the_frame_the_encoder_writes() {
    let data = [0.0_f32, 1.0, 2.0, 3.0, 3.0, 0.0];
    let options = EncodeOptions { coder: CoderChoice::Packed, ..EncodeOptions::bits(2) };
    let frame = Encoder::new(options).unwrap().encode(&TensorView::new(&data, &[2, 3]).unwrap()).unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md")).unwrap();
    let example = text.split("## 12. A worked example").nth(1).unwrap().split("\n## ").next().unwrap();
    let written: Vec<u8> = example
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| {
            line.split('`').nth(1).unwrap().split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap())
        })
        .collect();
    assert_eq!(written, frame, "{frame:02x?}");
}
