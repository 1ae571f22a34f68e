//! The JSON of an inference request, read without taking more than a few times its own length: no
//! tree of values, which would take sixteen times as much.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, SeqAccess, Visitor},
};

/// An inference request.
#[derive(Debug, Deserialize)]
pub(super) struct Form {
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) parameters: Parameters,
    pub(super) inputs: Vec<InputForm>,
    #[serde(default)]
    pub(super) outputs: Vec<OutputForm>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InputForm {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) datatype: String,
    #[serde(default)]
    pub(super) parameters: Parameters,
    pub(super) data: Option<Numbers>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OutputForm {
    pub(super) name: String,
    #[serde(default)]
    pub(super) parameters: Parameters,
}

/// The parameters that mean something here; others are skipped.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Parameters {
    pub(super) binary_data_size: Option<u64>,
    pub(super) binary_data: Option<bool>,
    #[serde(default)]
    pub(super) binary_data_output: bool,
    /// In microseconds, as Triton has it.
    pub(super) timeout: Option<u64>,
}

/// The numbers of nested lists, in their order.
#[derive(Debug)]
pub(super) struct Numbers(pub(super) Vec<f32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Numbers, D::Error> {
        let mut numbers = Vec::new();
        Append(&mut numbers).deserialize(deserializer)?;
        Ok(Numbers(numbers))
    }
}

/// Appends a number, or all of a list. How deep lists go is bounded by the parser.
struct Append<'n>(&'n mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a list of numbers")
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        let value = number as f32;
        if value.is_infinite() {
            return Err(E::custom(format_args!("{number} is beyond FP32")));
        }
        self.0.push(value);
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
        while parts.next_element_seed(Append(self.0))?.is_some() {}
        Ok(())
    }
}
