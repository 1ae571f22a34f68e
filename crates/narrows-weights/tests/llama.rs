//! A decoder of Llama's kind from packed weights does what transformers do with the same weights (`models/tiny_llama.py`).

use std::path::{Path, PathBuf};

use narrows_weights::net::{Llama, LlamaConfig, Seen, Weights};
use narrows_weights::{Checkpoint, Mode, PackOptions, PackedFile, Settings, pack_checkpoint};
use safetensors::SafeTensors;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-llama").join(name)
}

fn config() -> LlamaConfig {
    LlamaConfig::from_json(&std::fs::read_to_string(data("config.json")).unwrap()).unwrap()
}

fn packed(mode: &Mode) -> PackedFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packed.safetensors");
    let checkpoint = Checkpoint::open(data("model.safetensors")).unwrap();
    pack_checkpoint(&checkpoint, &path, mode, &PackOptions::default(), |_| {}).unwrap();
    PackedFile::read(std::fs::read(path).unwrap()).unwrap()
}

/// Sentences of 20 words, and the logits after each of their words.
fn expected() -> Vec<(Vec<u32>, Vec<f32>)> {
    let bytes = std::fs::read(data("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of = |name: &str| -> Vec<[u8; 4]> {
        let data = tensors.tensor(name).unwrap().data();
        data.chunks_exact(4).map(|bytes| bytes.try_into().unwrap()).collect()
    };
    let words: Vec<u32> = of("words").into_iter().map(u32::from_le_bytes).collect();
    let logits: Vec<f32> = of("logits").into_iter().map(f32::from_le_bytes).collect();
    words.chunks(20).zip(logits.chunks(20 * 64)).map(|(w, l)| (w.to_vec(), l.to_vec())).collect()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-4 * (1.0 + b.abs()))
}

#[test]
fn packed_weights_give_the_logits_of_transformers() {
    let quantized = Mode::Quantize(Settings::default(), None);
    let file = packed(&quantized);
    assert!(matches!(Weights::of(&file, "lm_head.weight").unwrap(), Weights::Packed(_)));
    for file in [file, packed(&Mode::Lossless)] {
        let llama = Llama::of(&file, &config()).unwrap();
        for (words, logits) in expected() {
            let found = llama.read(&mut Seen::default(), &words).unwrap();
            assert!(close(&found, &logits));
        }
    }
}

#[test]
fn words_read_one_by_one_or_at_once_lead_to_the_same() {
    let llama = Llama::of(&packed(&Mode::Quantize(Settings::default(), None)), &config()).unwrap();
    let (words, logits) = expected().remove(1);
    let mut seen = Seen::default();
    let mut found = llama.read(&mut seen, &words[..7]).unwrap();
    for word in &words[7..] {
        found.extend(llama.read(&mut seen, &[*word]).unwrap());
    }
    assert_eq!(seen.words(), 20);
    assert!(close(&found, &logits));
}

#[test]
fn what_does_not_fit_is_refused() {
    let file = packed(&Mode::Quantize(Settings::default(), None));
    let llama = Llama::of(&file, &config()).unwrap();
    let refused = |words: &[u32]| llama.read(&mut Seen::default(), words).unwrap_err().to_string();
    assert!(refused(&[]).contains("number of words"));
    assert!(refused(&[0; 25]).contains("bound is 24"));
    assert!(refused(&[64]).contains("64"));
    let text = std::fs::read_to_string(data("config.json")).unwrap();
    for (from, to, says) in [
        ("\"hidden_size\": 32", "\"hidden_size\": 48", "embeddings"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "heads"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", "self_attn.k_proj"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 0", "heads"),
        ("\"attention_bias\": false", "\"attention_bias\": true", "bias"),
        ("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "yarn"),
        ("\"silu\"", "\"gelu\"", "gelu"),
        ("\"rms_norm_eps\"", "\"other\"", "rms_norm_eps"),
    ] {
        assert!(text.contains(from), "{from}");
        let made =
            LlamaConfig::from_json(&text.replace(from, to)).and_then(|config| Llama::of(&file, &config));
        let said = made.unwrap_err().to_string();
        assert!(said.contains(says), "{to}: {said}");
    }
}
