//! One small network of each kind, as exporters write them: cut at every cut, head and tail do what the whole does.
//!
//! `models/export.py --tiny` makes the files. `models/check` does the same for the large ones.

use narrows_split::{
    Class, Cut, Dim, Engine, Manifest, Model, Origin, Place, Runtime, Session, Sizes, Splitter, Value,
    compare, offered, random_inputs, states,
};

const KINDS: [&str; 5] =
    ["tiny-residual", "tiny-depthwise", "tiny-encoder", "tiny-decoder", "tiny-decoder-kv"];

fn model(name: &str) -> Model {
    Model::read(format!("{}/tests/models/{name}.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Engines to try: with the feature `onnxruntime`, its library must be there.
fn runtimes() -> Vec<Runtime> {
    let all: &[Runtime] = if cfg!(feature = "onnxruntime") {
        &[Runtime::Tract, Runtime::OnnxRuntime(narrows_split::Optimisation::Basic)]
    } else {
        &[Runtime::Tract]
    };
    all.to_vec()
}

/// The cuts between two layers' residual sums, by the names that exporters give.
fn inner<'a>(splitter: &'a Splitter<'_>) -> impl Iterator<Item = &'a Cut> {
    splitter.cuts().iter().filter(|cut| cut.place == Place::Inner)
}

fn side(cut: &Cut, origin: Origin) -> Vec<&str> {
    cut.side.iter().filter(|side| side.origin == origin).map(|side| side.name.as_str()).collect()
}

#[test]
fn head_and_tail_of_every_kind_give_the_bits_of_the_whole_at_every_cut() {
    for name in KINDS {
        let whole = model(name);
        let splitter = Splitter::new(&whole, &Sizes::default()).unwrap();
        assert!(offered(splitter.cuts()).len() >= 3, "{name}");
        let inputs = random_inputs(&whole, &Sizes::default(), 7).unwrap();
        for runtime in runtimes() {
            let engine = Engine::load_on(&whole, runtime).unwrap();
            for cut in inner(&splitter) {
                let split = splitter.split(&cut.name).unwrap();
                let head = Engine::load_on(&split.head, runtime).unwrap();
                let tail = Engine::load_on(&split.tail, runtime).unwrap();
                let difference = compare(&engine, &head, &tail, &inputs).unwrap();
                assert_eq!(difference.elements, 0, "{name} cut at {} with {runtime}", cut.name);
                assert!(difference.scale > 0.0, "{name}: every output is 0");
            }
        }
    }
}

#[test]
fn halves_of_an_encoder_take_any_batch_and_length() {
    let whole = model("tiny-encoder");
    let splitter = Splitter::new(&whole, &Sizes::default()).unwrap();
    let cut = offered(splitter.cuts())[1].name.clone();
    let split = splitter.split(&cut).unwrap();
    for runtime in runtimes() {
        let [engine, head, tail] =
            [&whole, &split.head, &split.tail].map(|model| Engine::load_on(model, runtime).unwrap());
        for (batch, length) in [(1, 1), (3, 9), (2, 32)] {
            let sizes = Sizes::default().with("batch_size", batch).with("sequence_length", length);
            let inputs = random_inputs(&whole, &sizes, 3).unwrap();
            let difference = compare(&engine, &head, &tail, &inputs).unwrap();
            assert_eq!(difference.elements, 0, "{batch} x {length} with {runtime}");
        }
    }
}

#[test]
fn an_encoder_is_cut_after_every_attention_and_every_layer_with_its_mask_at_the_side() {
    let whole = model("tiny-encoder");
    let splitter = Splitter::new(&whole, &Sizes::default()).unwrap();
    let offered = offered(splitter.cuts());
    let names: Vec<_> = offered.iter().map(|cut| cut.name.as_str()).collect();
    let norm = "LayerNorm/LayerNormalization_output_0";
    let expected: Vec<_> = ["0/attention/output", "0/output", "1/attention/output"]
        .map(|place| format!("/encoder/encoder/layer.{place}/{norm}"))
        .into();
    assert_eq!(names, expected);
    for cut in &offered {
        assert_eq!(side(cut, Origin::Input), ["attention_mask"], "{}", cut.name);
        assert_eq!(side(cut, Origin::Head), [""; 0], "{}", cut.name);
        assert_eq!(cut.shape, [1, Sizes::DEFAULT, 32]);
    }
}

#[test]
fn caches_stay_with_their_layers() {
    let whole = model("tiny-decoder-kv");
    let caches = |layer: usize| ["key", "value"].map(|part| format!("past_key_values.{layer}.{part}"));
    let found: Vec<_> = states(&whole).unwrap().into_iter().map(|state| state.input).collect();
    assert_eq!(found, [caches(0), caches(1)].concat());
    let splitter = Splitter::new(&whole, &Sizes::default()).unwrap();
    // Between the layers.
    let cut = inner(&splitter).find(|cut| cut.head_states.len() == 2 && cut.tail_states.len() == 2).unwrap();
    let inputs =
        |states: &[narrows_split::State]| states.iter().map(|state| state.input.clone()).collect::<Vec<_>>();
    assert_eq!(inputs(&cut.head_states), caches(0));
    assert_eq!(inputs(&cut.tail_states), caches(1));
    assert_eq!(side(cut, Origin::Input), ["attention_mask", "position_ids"]);
    let split = splitter.split(&cut.name).unwrap();
    assert_eq!(states(&split.head).unwrap(), cut.head_states);
    assert_eq!(states(&split.tail).unwrap(), cut.tail_states);
}

#[test]
fn open_dimensions_keep_their_names_across_the_cut() {
    let whole = model("tiny-decoder-kv");
    let splitter = Splitter::new(&whole, &Sizes::default()).unwrap();
    let cut = offered(splitter.cuts())[0].name.clone();
    let tail = Engine::load(&splitter.split(&cut).unwrap().tail).unwrap();
    let payload = &tail.inputs()[0];
    let open = |symbol: &str| Dim::Open(symbol.into());
    assert_eq!(payload.dims, [open("batch_size"), open("sequence_length"), Dim::Fixed(32)]);
}

/// Logits of the last token.
fn last(outputs: &[(String, Value)]) -> Vec<f32> {
    let (_, logits) = outputs.iter().find(|(name, _)| name == "logits").unwrap();
    logits.f32().unwrap().chunks_exact(logits.shape()[2]).next_back().unwrap().to_vec()
}

fn tokens(tokens: &[i64], past: usize) -> [Value; 3] {
    let (fresh, total) = (tokens.len(), past + tokens.len());
    let row = |values: Vec<i64>| Value::new([1, values.len()], values).unwrap();
    [row(tokens.to_vec()), row(vec![1; total]), row((past as i64..(past + fresh) as i64).collect())]
}

#[test]
fn a_split_decoder_generates_what_the_whole_generates_step_by_step() {
    let whole = model("tiny-decoder-kv");
    let splitter = Splitter::new(&whole, &Sizes::default()).unwrap();
    let cut = inner(&splitter).find(|cut| cut.head_states.len() == 2 && cut.tail_states.len() == 2).unwrap();
    let split = splitter.split(&cut.name).unwrap();
    for runtime in runtimes() {
        let mut one = Session::new(&whole, runtime).unwrap();
        let [mut head, mut tail] =
            [&split.head, &split.tail].map(|half| Session::new(half, runtime).unwrap());
        let mut given = vec![3_i64, 14, 15, 9, 26];
        let mut past = 0;
        for _ in 0..4 {
            let [ids, mask, positions] = tokens(&given[past..], past);
            let whole_inputs = [("input_ids", &ids), ("attention_mask", &mask), ("position_ids", &positions)];
            let expected = last(&one.step(&whole_inputs).unwrap());
            let sent = head.step(&whole_inputs).unwrap();
            let (_, payload) = sent.iter().find(|(name, _)| *name == cut.name).unwrap();
            let tail_inputs =
                [(cut.name.as_str(), payload), ("attention_mask", &mask), ("position_ids", &positions)];
            let found = last(&tail.step(&tail_inputs).unwrap());
            assert_eq!(found, expected, "after {past} tokens with {runtime}");
            past = given.len();
            let next = (0..found.len()).max_by(|&a, &b| found[a].total_cmp(&found[b])).unwrap();
            given.push(next as i64);
            // 2 layers of key and value, 2 heads of 8 features, a float32 for each token.
            assert_eq!(one.state_bytes(), 2 * 2 * 2 * 8 * 4 * past);
            assert_eq!(head.state_bytes() + tail.state_bytes(), one.state_bytes());
        }
    }
}

#[test]
fn a_cached_decoder_agrees_with_one_that_sees_all_tokens_at_once() {
    let given = [7_i64, 21, 40, 2, 33, 18];
    let [ids, mask, positions] = tokens(&given, 0);
    let inputs = [("input_ids", &ids), ("attention_mask", &mask), ("position_ids", &positions)];
    let mut cached = Session::new(&model("tiny-decoder-kv"), Runtime::Tract).unwrap();
    let mut at_once = Session::new(&model("tiny-decoder"), Runtime::Tract).unwrap();
    let expected = last(&at_once.step(&inputs).unwrap());
    let mut found = Vec::new();
    for (past, token) in given.iter().enumerate() {
        let [ids, mask, positions] = tokens(&[*token], past);
        let inputs = [("input_ids", &ids), ("attention_mask", &mask), ("position_ids", &positions)];
        found = last(&cached.step(&inputs).unwrap());
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}

#[test]
fn a_failed_step_leaves_the_caches_as_they_were() {
    let mut session = Session::new(&model("tiny-decoder-kv"), Runtime::Tract).unwrap();
    let step = |session: &mut Session, token: i64, past: usize| {
        let [ids, mask, positions] = tokens(&[token], past);
        session.step(&[("input_ids", &ids), ("attention_mask", &mask), ("position_ids", &positions)])
    };
    step(&mut session, 5, 0).unwrap();
    let held = session.state_bytes();
    assert!(step(&mut session, 64, 1).is_err(), "a token beyond the vocabulary");
    assert_eq!(session.state_bytes(), held);
    step(&mut session, 6, 1).unwrap();
    session.reset();
    assert_eq!(session.state_bytes(), 0);
}

#[test]
fn a_manifest_tells_payload_side_and_state_apart() {
    let whole = model("tiny-decoder-kv");
    let splitter = Splitter::new(&whole, &Sizes::default()).unwrap();
    let cut = inner(&splitter).find(|cut| cut.head_states.len() == 2 && cut.tail_states.len() == 2).unwrap();
    let manifest = splitter.split(&cut.name).unwrap().manifest().unwrap();
    let classes =
        |half: &narrows_split::Half| half.inputs.iter().map(|tensor| tensor.class).collect::<Vec<_>>();
    assert_eq!(
        classes(&manifest.head),
        [Class::Input, Class::Input, Class::Input, Class::State, Class::State]
    );
    assert_eq!(
        classes(&manifest.tail),
        [Class::Payload, Class::Side, Class::Side, Class::State, Class::State]
    );
    let returned = manifest.tail.outputs.iter().filter_map(|tensor| tensor.returns_as.as_deref());
    assert_eq!(returned.collect::<Vec<_>>(), ["past_key_values.1.key", "past_key_values.1.value"]);
    assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()).unwrap(), manifest);
}
