//! Decoders of Llama's kind (Touvron et al. 2023, arXiv:2302.13971) under the names that Hugging Face gives their tensors.

use serde::Deserialize;

use super::attention::Heads;
use super::linear::dense;
use super::{Linear, Weights};
use crate::error::{Error, Result};
use crate::file::PackedFile;

/// What a `config.json` says of a decoder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LlamaConfig {
    /// Elements of the vector of a word.
    hidden_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    /// Added to mean squares.
    rms_norm_eps: f32,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    hidden_act: Option<String>,
    /// The base of the rotations' frequencies; newer files have it in `rope_parameters`.
    rope_theta: Option<f32>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f32>,
}

/// The base of frequencies of files that do not say.
const THETA: f32 = 10_000.0;

impl LlamaConfig {
    /// Read the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Container`] if it is not one, or asks for what is not computed here: biases, other activations than `silu`,
    /// rescaled rotations; [`Error::Shape`] for heads that do not fit each other.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(text)
            .map_err(|error| Error::container(format!("not a Llama's config.json: {error}")))?;
        let unsupported = |what: String| Error::container(format!("config.json: {what} is not supported"));
        if config.attention_bias || config.mlp_bias {
            return Err(unsupported("a bias".to_owned()));
        }
        if let Some(other) = config.hidden_act.as_deref().filter(|act| *act != "silu") {
            return Err(unsupported(format!("hidden_act {other}")));
        }
        let ropes = config.rope_scaling.iter().chain(&config.rope_parameters);
        if let Some(other) =
            ropes.filter_map(|rope| rope.rope_type.as_deref()).find(|kind| *kind != "default")
        {
            return Err(unsupported(format!("rope_type {other}")));
        }
        let heads = config.heads();
        let counts =
            [heads.queries, heads.keys, heads.size, config.hidden_size, config.max_position_embeddings];
        if counts.iter().any(|&count| count == 0 || count > 1 << 24)
            || !heads.queries.is_multiple_of(heads.keys)
        {
            let (value, bound) = (heads.keys, heads.queries);
            return Err(Error::Shape { what: "number of key and value heads", value, bound });
        }
        if !heads.size.is_multiple_of(2) {
            return Err(Error::Shape {
                what: "size of a head, which must be even,",
                value: heads.size,
                bound: 2,
            });
        }
        Ok(config)
    }

    fn heads(&self) -> Heads {
        let queries = self.num_attention_heads;
        let size = self.head_dim.unwrap_or(self.hidden_size / queries.max(1));
        Heads { queries, keys: self.num_key_value_heads.unwrap_or(queries), size }
    }

    fn theta(&self) -> f32 {
        let newer = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        newer.or(self.rope_theta).unwrap_or(THETA)
    }
}

/// A decoder whose packed weights stay packed: words in, for each the logits of the word that follows out.
#[derive(Debug)]
pub struct Llama {
    words: Weights,
    layers: Vec<Layer>,
    norm: Norm,
    /// None if the embeddings of words serve for it too.
    head: Option<Linear>,
    heads: Heads,
    /// Of rotations, for each pair of elements of a head.
    frequencies: Vec<f32>,
    positions: usize,
}

/// Keys and values of the words that a decoder has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    words: usize,
    /// For each layer.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Seen {
    /// How many words there were.
    pub const fn words(&self) -> usize {
        self.words
    }
}

#[derive(Debug)]
struct Norm {
    scale: Vec<f32>,
    epsilon: f32,
}

#[derive(Debug)]
struct Layer {
    norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    second_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Llama {
    /// The decoder in a packed file.
    ///
    /// # Errors
    /// As [`PackedFile::tensor`], and [`Error::Shape`] for weights that do not fit the configuration.
    pub fn of(file: &PackedFile, config: &LlamaConfig) -> Result<Self> {
        let (heads, features) = (config.heads(), config.hidden_size);
        let words = Weights::of(file, "model.embed_tokens.weight")?;
        fits("features of the embeddings", words.shape().1, features)?;
        let layers = (0..config.num_hidden_layers).map(|index| Layer::of(file, index, config));
        // Many files leave it away where it is the embeddings' matrix.
        let name = "lm_head";
        let has_head = file.names().iter().any(|found| found == "lm_head.weight");
        let head = has_head.then(|| linear(file, name, (words.shape().0, features))).transpose()?;
        let pairs = heads.size / 2;
        let frequency = |pair: usize| config.theta().powf(-(pair as f32) / pairs as f32);
        Ok(Self {
            norm: Norm::of(file, "model.norm", config)?,
            layers: layers.collect::<Result<_>>()?,
            frequencies: (0..pairs).map(frequency).collect(),
            positions: config.max_position_embeddings,
            words,
            head,
            heads,
        })
    }

    /// Read words that follow those `seen`; the logits after each of them, words x vocabulary.
    ///
    /// # Errors
    /// [`Error::Shape`] for no words, more than there are positions for, or one that is not in the vocabulary; what was
    /// seen is then unspecified.
    pub fn read(&self, seen: &mut Seen, words: &[u32]) -> Result<Vec<f32>> {
        let bound = self.positions.saturating_sub(seen.words);
        if words.is_empty() || words.len() > bound {
            return Err(Error::Shape { what: "number of words", value: words.len(), bound });
        }
        seen.keys.resize(self.layers.len(), Vec::new());
        seen.values.resize(self.layers.len(), Vec::new());
        let mut x = Vec::new();
        for &word in words {
            x.extend(self.words.row(word as usize)?);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            self.layer(layer, index, seen, &mut x)?;
        }
        seen.words += words.len();
        self.norm.apply(&mut x);
        if let Some(head) = &self.head {
            return head.run(&x);
        }
        let mut logits = vec![0.0; words.len() * self.words.shape().0];
        self.words.product(&x, &mut logits)?;
        Ok(logits)
    }

    fn layer(&self, layer: &Layer, index: usize, seen: &mut Seen, x: &mut [f32]) -> Result<()> {
        let mut normed = x.to_vec();
        layer.norm.apply(&mut normed);
        let [mut query, mut key] = [layer.query.run(&normed)?, layer.key.run(&normed)?];
        self.rotate(&mut query, self.heads.queries, seen.words);
        self.rotate(&mut key, self.heads.keys, seen.words);
        let (keys, values) = (&mut seen.keys[index], &mut seen.values[index]);
        keys.extend(key);
        values.extend(layer.value.run(&normed)?);
        let attended = self.heads.attend(&query, keys, values, |word| seen.words + word + 1);
        add(x, &layer.attended.run(&attended)?);
        let mut normed = x.to_vec();
        layer.second_norm.apply(&mut normed);
        let mut wide = layer.gate.run(&normed)?;
        for (gate, up) in wide.iter_mut().zip(layer.up.run(&normed)?) {
            *gate = *gate / (1.0 + (-*gate).exp()) * up;
        }
        add(x, &layer.down.run(&wide)?);
        Ok(())
    }

    /// Turn the pairs of each head (element `i` of its first half and of its second) by an angle that grows with the position
    /// (Su et al. 2021, arXiv:2104.09864).
    fn rotate(&self, x: &mut [f32], heads: usize, first: usize) {
        let (size, half) = (self.heads.size, self.heads.size / 2);
        for (word, x) in x.chunks_exact_mut(heads * size).enumerate() {
            for head in x.chunks_exact_mut(size) {
                let (left, right) = head.split_at_mut(half);
                for ((a, b), frequency) in left.iter_mut().zip(right).zip(&self.frequencies) {
                    let (sin, cos) = ((first + word) as f32 * frequency).sin_cos();
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn fits(what: &'static str, value: usize, bound: usize) -> Result<()> {
    if value == bound { Ok(()) } else { Err(Error::Shape { what, value, bound }) }
}

/// A layer without bias, of these output and input features.
fn linear(file: &PackedFile, name: &str, (outputs, inputs): (usize, usize)) -> Result<Linear> {
    let weights = Weights::of(file, &format!("{name}.weight"))?;
    let found = weights.shape();
    fits("outputs of a layer", found.0, outputs)
        .and_then(|()| fits("inputs of a layer", found.1, inputs))
        .and_then(|()| Linear::new(weights, vec![0.0; outputs]))
        .map_err(|error| error.in_tensor(name))
}

impl Norm {
    fn of(file: &PackedFile, name: &str, config: &LlamaConfig) -> Result<Self> {
        let (scale, _) = dense(file, &format!("{name}.weight"))?;
        let fit = fits("length of a norm", scale.len(), config.hidden_size);
        fit.map_err(|error| error.in_tensor(name))?;
        Ok(Self { scale, epsilon: config.rms_norm_eps })
    }

    /// `scale x / sqrt(mean x^2 + epsilon)`.
    fn apply(&self, x: &mut [f32]) {
        for x in x.chunks_exact_mut(self.scale.len()) {
            let square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
            let by = 1.0 / (square + self.epsilon).sqrt();
            x.iter_mut().zip(&self.scale).for_each(|(x, scale)| *x *= by * scale);
        }
    }
}

impl Layer {
    fn of(file: &PackedFile, index: usize, config: &LlamaConfig) -> Result<Self> {
        let (heads, features) = (config.heads(), config.hidden_size);
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let part = |part: &str, shape| linear(file, &name(part), shape);
        let gate_rows = Weights::of(file, &name("mlp.gate_proj.weight"))?.shape().0;
        let (queries, keys) = (heads.queries * heads.size, heads.keys * heads.size);
        Ok(Self {
            norm: Norm::of(file, &name("input_layernorm"), config)?,
            query: part("self_attn.q_proj", (queries, features))?,
            key: part("self_attn.k_proj", (keys, features))?,
            value: part("self_attn.v_proj", (keys, features))?,
            attended: part("self_attn.o_proj", (features, queries))?,
            second_norm: Norm::of(file, &name("post_attention_layernorm"), config)?,
            gate: part("mlp.gate_proj", (gate_rows, features))?,
            up: part("mlp.up_proj", (gate_rows, features))?,
            down: part("mlp.down_proj", (features, gate_rows))?,
        })
    }
}
