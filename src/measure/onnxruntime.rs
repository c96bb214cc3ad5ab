//! ONNX Runtime itself as a third path of `bench`: its shared library is loaded when asked for, nothing is linked. Without the feature
//! `ort` this says how to get it.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::path::Path;

/// Variable that names the shared library.
pub const ENV: &str = "ORT_DYLIB_PATH";

/// A model ready to run on ONNX Runtime's CPU provider.
pub struct OnnxRuntime {
    #[cfg(feature = "ort")]
    session: ort::session::Session,
    #[cfg(feature = "ort")]
    inputs: Vec<(String, ort::value::DynValue)>,
    /// Name and version, as reports give it.
    pub name: String,
}

#[cfg(not(feature = "ort"))]
impl OnnxRuntime {
    /// Opens a model file.
    ///
    /// # Errors
    /// Always: this build lacks the feature.
    pub fn open(_model: &Path, _threads: usize, _inputs: &[(String, Tensor)]) -> Result<OnnxRuntime> {
        Err(Error::unsupported("this build cannot run ONNX Runtime")
            .hint("build with `cargo install madd-prof --features ort`; --import-profile joins a profile it wrote"))
    }
    /// Runs once.
    ///
    /// # Errors
    /// Never: there is none of it.
    pub fn run(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(feature = "ort")]
impl OnnxRuntime {
    /// Opens a model file with all of its own optimizations.
    ///
    /// # Errors
    /// If the library is not found or too old, or it refuses the model or an input.
    pub fn open(model: &Path, threads: usize, inputs: &[(String, Tensor)]) -> Result<OnnxRuntime> {
        use ort::session::builder::GraphOptimizationLevel;
        let library = std::env::var(ENV)
            .ok()
            .filter(|p| !p.is_empty())
            .unwrap_or_else(|| format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX));
        let missing = |e: &dyn std::fmt::Display| {
            Error::unsupported(format!("ONNX Runtime's library '{library}' cannot be used: {e}")).hint(format!(
                "{ENV} names it; in a Python environment it is onnxruntime/capi/libonnxruntime.so.* (version 1.17 or newer)"
            ))
        };
        let failed = |e: &dyn std::fmt::Display| Error::run(format!("ONNX Runtime: {e}"));
        let environment = ort::init_from(&library).map_err(|e| missing(&e))?.build().map_err(|e| missing(&e))?;
        let session = ort::session::Session::builder(&environment)
            .map_err(|e| failed(&e))?
            .with_intra_threads(threads)
            .map_err(|e| failed(&e))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|e| failed(&e))?
            .commit_from_file(model)
            .map_err(|e| failed(&e).in_file(model))?;
        let inputs = inputs.iter().map(|(name, t)| Ok((name.clone(), value(t)?))).collect::<Result<_>>()?;
        Ok(OnnxRuntime { session, inputs, name: "ONNX Runtime".into() })
    }
    /// Runs once; results are dropped.
    ///
    /// # Errors
    /// If it refuses an input or a kernel fails.
    pub fn run(&mut self) -> Result<()> {
        let inputs: Vec<(&str, &ort::value::DynValue)> = self.inputs.iter().map(|(n, v)| (n.as_str(), v)).collect();
        self.session.run(inputs).map(drop).map_err(|e| Error::run(format!("ONNX Runtime: {e}")))
    }
}

/// A tensor as ONNX Runtime takes it.
#[cfg(feature = "ort")]
fn value(t: &Tensor) -> Result<ort::value::DynValue> {
    use crate::tensor::DType;
    use ort::value::Tensor as Theirs;
    let dims = t.dims().to_vec();
    let made = match t.dtype() {
        DType::F32 => Theirs::from_array((dims, t.view::<f32>()?.into_owned())).map(|v| v.into_dyn()),
        DType::F64 => Theirs::from_array((dims, t.view::<f64>()?.into_owned())).map(|v| v.into_dyn()),
        DType::I64 => Theirs::from_array((dims, t.to_i64s()?)).map(|v| v.into_dyn()),
        DType::I32 => Theirs::from_array((dims, t.view::<i32>()?.into_owned())).map(|v| v.into_dyn()),
        DType::U8 => Theirs::from_array((dims, t.view::<u8>()?.into_owned())).map(|v| v.into_dyn()),
        DType::I8 => Theirs::from_array((dims, t.view::<i8>()?.into_owned())).map(|v| v.into_dyn()),
        DType::Bool => {
            let bools: Vec<bool> = t.to_i64s()?.into_iter().map(|v| v != 0).collect();
            Theirs::from_array((dims, bools)).map(|v| v.into_dyn())
        }
        other => {
            return Err(Error::unsupported(format!("inputs of type {} are not handed to ONNX Runtime", other.name())));
        }
    };
    made.map_err(|e| Error::run(format!("ONNX Runtime: {e}")))
}
