//! Attributes of a node.

use super::error::{OnnxError as Error, Result};
use super::proto::{Attribute, Node};

/// The attributes that a node may have; another value than the one asked for is an error.
pub struct Attributes<'a>(pub &'a Node);

impl Attributes<'_> {
    fn find(&self, name: &str) -> Option<&Attribute> {
        self.0.attributes.iter().find(|attribute| attribute.name == name)
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.find(name).map_or(default, |attribute| attribute.int)
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.find(name).map_or(default, |attribute| attribute.float)
    }

    pub fn ints(&self, name: &str) -> &[i64] {
        self.find(name).map_or(&[], |attribute| &attribute.ints)
    }

    /// Two small positive numbers, one for each axis of an image.
    pub fn pair(&self, name: &str, default: usize) -> Result<[usize; 2]> {
        match self.ints(name) {
            [] => Ok([default; 2]),
            &[y, x] if (1..=64).contains(&y) && (1..=64).contains(&x) => Ok([y as usize, x as usize]),
            other => Err(self.unsupported(format!("{name} {other:?}"))),
        }
    }

    /// Padding, the same before and behind each axis.
    pub fn padding(&self) -> Result<[usize; 2]> {
        let auto = self.find("auto_pad").map_or(&b"NOTSET"[..], |attribute| &attribute.string);
        match self.ints("pads") {
            _ if auto != b"NOTSET" => Err(self.unsupported("auto_pad".into())),
            [] => Ok([0; 2]),
            &[y, x, y_end, x_end]
                if y == y_end && x == x_end && (0..64).contains(&y) && (0..64).contains(&x) =>
            {
                Ok([y as usize, x as usize])
            }
            other => Err(self.unsupported(format!("padding {other:?}"))),
        }
    }

    pub fn unsupported(&self, what: String) -> Error {
        let supported = "Conv, Gemm (transB), Relu, Add, Sub, Mul and Div by a number, ReduceMean or \
                         GlobalAveragePool over all positions, MaxPool, Flatten; batch normalisation folded";
        Error::Unsupported { place: self.place(), what, supported }
    }

    pub fn invalid(&self, rule: String) -> Error {
        Error::InvalidModel { place: self.place(), rule }
    }

    fn place(&self) -> String {
        let node = self.0;
        let name = if node.name.is_empty() { node.outputs.first() } else { Some(&node.name) };
        format!("node `{}` ({})", name.map_or("", String::as_str), node.op)
    }
}
