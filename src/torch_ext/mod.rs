//! Unsafe fence 4: what tch lacks of libtorch, in C++. Process groups, their collectives, and the reducer of
//! gradients, all PyTorch's own (`c10d.cpp`); the memory of devices and the way there (`device.cpp`); updates of many
//! parameters at once (`update.cpp`); exchanges between GPUs (`nccl.cpp`); CUDA graphs (`graph.cpp`); reading of maps
//! between their pixels (`reading.cpp`); normalisation and what follows it, and the images of batches, by kernels of our own
//! (`norm.cpp`, `images.cpp`, `kernels/`); weights whose gradients add up where they are made (`narrow.cpp`).
//!
//! Every process of a group must call the same collectives in the same order. One that ends without warning makes the
//! collectives of the others fail.
//!
//! Absent: what is exchanged, and when.
#![expect(unsafe_code, reason = "a C interface is unsafe by nature; this is its only place")]

mod graph;
mod host;

pub use graph::Graph;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind, TchError, Tensor};

/// What c10d refused, in the first line of its words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The processes did not find each other.
    #[error("the processes that train together do not meet at {place}: {what}")]
    Meeting {
        /// Host and port.
        place: String,
        /// Why.
        what: String,
    },
    /// They lost each other.
    #[error(
        "another process of this training has ended or cannot be reached ({0}); the run goes on from its last checkpoint with --resume, with any number of processes"
    )]
    Lost(String),
    /// Their GPUs did not find each other.
    #[error(
        "the GPUs that train together do not find each other (this process has cuda:{gpu}): {what}; `nct doctor` says what there is, and NCCL_DEBUG=WARN lets NCCL say more"
    )]
    Gpus {
        /// That of this process.
        gpu: usize,
        /// Why.
        what: String,
    },
    /// They disagree.
    #[error("{0}")]
    Apart(String),
    /// This process's own device refuses, memory above all.
    #[error("torch: {0}")]
    Refused(String),
}

/// Where and as whom a process joins a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Host of rank 0, which listens there.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Name of the network interface, if one is given.
    pub interface: Option<String>,
    /// This process, from 0.
    pub rank: u32,
    /// Number of processes.
    pub world: u32,
}

/// How long the processes wait until all are there.
const JOIN: Duration = Duration::from_mins(5);
/// How long a collective waits for a process that is there. Whatever may take long is shared among all, or ends with its
/// process.
const WAIT: Duration = Duration::from_mins(30);

/// Processes that train one network together.
pub struct Group {
    raw: *mut c_void,
    rank: u32,
    world: u32,
}

// SAFETY: c10d's groups lock what they share; no thread is bound to one. That calls come in one order is asked of callers,
// and breaking it gives errors or wrong sums, not invalid memory.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} of {})", self.rank, self.world)
    }
}

unsafe extern "C" {
    fn nct_error() -> *const c_char;
    fn nct_group_new(
        host: *const c_char,
        port: u16,
        interface: *const c_char,
        rank: c_int,
        world: c_int,
        join_ms: i64,
        wait_ms: i64,
        out: *mut *mut c_void,
    ) -> c_int;
    fn nct_group_cuda(group: *mut c_void, index: c_int) -> c_int;
    fn nct_group_free(group: *mut c_void);
    fn nct_group_sum(group: *mut c_void, tensor: *const c_void) -> c_int;
    fn nct_group_average(group: *mut c_void, tensors: *const *const c_void, n: usize) -> c_int;
    fn nct_group_broadcast(group: *mut c_void, tensor: *const c_void) -> c_int;
    fn nct_group_gather(group: *mut c_void, tensor: *const c_void, out: *mut *mut c_void) -> c_int;
    fn nct_group_norm(
        group: *mut c_void,
        x: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        mean: *const c_void,
        variance: *const c_void,
        momentum: f64,
        eps: f64,
        out: *mut *mut c_void,
    ) -> c_int;
    fn nct_reducer_new(
        group: *mut c_void,
        params: *const *const c_void,
        n: usize,
        out: *mut *mut c_void,
    ) -> c_int;
    fn nct_reducer_prepare(reducer: *mut c_void, loss: *const c_void) -> c_int;
    fn nct_reducer_free(reducer: *mut c_void);
    fn nct_cuda_memory(index: c_int, free: *mut u64) -> c_int;
    fn nct_cuda_peak(index: c_int, peak: *mut u64) -> c_int;
    fn nct_cuda_use(index: c_int) -> c_int;
    fn nct_send(tensor: *const c_void, index: c_int, out: *mut *mut c_void) -> c_int;
    fn nct_sgd(
        params: *const *const c_void,
        grads: *const *const c_void,
        momenta: *const *const c_void,
        n: usize,
        how: *const SgdUpdate,
        unless: *const c_void,
    ) -> c_int;
    fn nct_adam(
        params: *const *const c_void,
        grads: *const *const c_void,
        means: *const *const c_void,
        squares: *const *const c_void,
        largest: *const *const c_void,
        step: *const i64,
        n: usize,
        how: *const AdamUpdate,
        unless: *const c_void,
    ) -> c_int;
    fn nct_zero(tensors: *const *const c_void, n: usize) -> c_int;
    fn nct_clamp(tensors: *const *const c_void, n: usize, low: f64, high: f64) -> c_int;
    fn nct_kernels(index: c_int) -> c_int;
    fn nct_narrow(weight: *const c_void, out: *mut *mut c_void) -> c_int;
    fn nct_images(
        bytes: *const c_void,
        values: *const c_void,
        moves: *const c_void,
        height: i64,
        width: i64,
        out: *mut *mut c_void,
    ) -> c_int;
    fn nct_norm_relu(
        x: *const c_void,
        kernel: *const c_void,
        weight: *const c_void,
        bias: *const c_void,
        lacking: *const c_void,
        mean: *const c_void,
        variance: *const c_void,
        batches: *const c_void,
        momentum: f64,
        eps: f64,
        pooled: bool,
        adds: bool,
        group: *const c_void,
        out: *mut *mut c_void,
    ) -> c_int;
    fn nct_read(
        map: *const c_void,
        at: *const c_void,
        room: i64,
        fused: bool,
        out: *mut *mut c_void,
    ) -> c_int;
}

/// One update by SGD: g += wd w; v = mu v + (1 - d) g, in the first update v = g; w -= lr v, or lr (g + mu v) looking
/// ahead.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SgdUpdate {
    /// lr.
    pub lr: f64,
    /// wd.
    pub weight_decay: f64,
    /// mu.
    pub momentum: f64,
    /// d.
    pub dampening: f64,
    /// Look ahead.
    pub nesterov: bool,
    /// The first update: the momenta's values do not matter.
    pub first: bool,
    /// By one kernel, which rounds in other places.
    pub fused: bool,
}

/// One update by Adam, with bias correction and eps outside the root.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AdamUpdate {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Of the mean gradient.
    pub beta1: f64,
    /// Of the mean squared gradient.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Weight decay apart from the gradient: AdamW.
    pub decoupled: bool,
    /// Divide by the largest second moment so far.
    pub amsgrad: bool,
    /// By one kernel, which rounds in other places.
    pub fused: bool,
}

/// Pointers to the C++ tensors; none of none.
fn list(tensors: &[Tensor]) -> Vec<*const c_void> {
    tensors.iter().map(raw).collect()
}

fn start(tensors: &[*const c_void]) -> *const *const c_void {
    if tensors.is_empty() { ptr::null() } else { tensors.as_ptr() }
}

/// Null, or the tensor of a fused kernel's `unless`.
fn gate(unless: Option<&Tensor>, fused: bool) -> *const c_void {
    assert!(unless.is_none_or(|gate| fused && gate.kind() == Kind::Float && gate.dim() == 0));
    unless.map_or(ptr::null(), raw)
}

/// Updates `params` in place; `grads`, and `momenta` unless there is no momentum, are as many and of the same shapes,
/// types and device. If `unless`, a float `[]` of that device, is 1 by then, the fused kernel changes nothing.
pub fn update_sgd(
    params: &[Tensor],
    grads: &[Tensor],
    momenta: &[Tensor],
    how: &SgdUpdate,
    unless: Option<&Tensor>,
) -> Result<(), String> {
    assert!(params.len() == grads.len() && (momenta.is_empty() || momenta.len() == params.len()));
    let ([w, g, v], unless) = ([params, grads, momenta].map(list), gate(unless, how.fused));
    // SAFETY: the lists are as long as is said, of tensors that live through the call, or null; so is `unless`, which is
    // of the type C++ expects; `how` has C++'s layout.
    checked(unsafe { nct_sgd(w.as_ptr(), g.as_ptr(), start(&v), w.len(), how, unless) })
}

/// Updates `params` in place; `grads` and the moments are as many and of the same shapes, types and device: means, mean
/// squares, and with AMSGrad the largest of these. `steps` are the number of this update of each, from 1; by kernels that
/// are not fused, the same of all. `unless` as in [`update_sgd`].
pub fn update_adam(
    params: &[Tensor],
    grads: &[Tensor],
    moments: [&[Tensor]; 3],
    steps: &[i64],
    how: &AdamUpdate,
    unless: Option<&Tensor>,
) -> Result<(), String> {
    let [means, squares, largest] = moments;
    assert!([grads, means, squares].iter().all(|list| list.len() == params.len()));
    assert!(largest.len() == if how.amsgrad { params.len() } else { 0 });
    assert!(steps.len() == params.len() && (how.fused || steps.windows(2).all(|pair| pair[0] == pair[1])));
    let lists = [params, grads, means, squares, largest].map(list);
    let [w, g, m, v, top] = [0, 1, 2, 3, 4].map(|i: usize| start(&lists[i]));
    let unless = gate(unless, how.fused);
    // SAFETY: as in `update_sgd`.
    checked(unsafe { nct_adam(w, g, m, v, top, steps.as_ptr(), params.len(), how, unless) })
}

/// Makes all values of `tensors` zero.
pub fn zero(tensors: &[Tensor]) -> Result<(), String> {
    let all = list(tensors);
    // SAFETY: `all` has as many tensors as is said, which live through the call.
    checked(unsafe { nct_zero(all.as_ptr(), all.len()) })
}

/// Puts all values of `tensors` between `low` and `high`; each may be infinite.
pub fn clamp(tensors: &[Tensor], low: f64, high: f64) -> Result<(), String> {
    let all = list(tensors);
    // SAFETY: as in `zero`.
    checked(unsafe { nct_clamp(all.as_ptr(), all.len(), low, high) })
}

/// Bytes that are free on a GPU, or why that is not known.
pub fn free_memory(gpu: usize) -> Result<u64, String> {
    let mut free = 0;
    // SAFETY: `free` is a place for the number.
    checked(unsafe { nct_cuda_memory(gpu as c_int, &raw mut free) })?;
    Ok(free)
}

/// The most bytes of a GPU that tensors of this process have had at a time, or why that is not known.
pub fn peak_memory(gpu: usize) -> Result<u64, String> {
    let mut peak = 0;
    // SAFETY: `peak` is a place for the number.
    checked(unsafe { nct_cuda_peak(gpu as c_int, &raw mut peak) })?;
    Ok(peak)
}

/// Makes a GPU that of this thread, for what names none, such as pinned memory; and lets it convolve with the same bits
/// every time, and with all 32 where 32 are asked for.
pub fn use_gpu(gpu: usize) -> Result<(), String> {
    // SAFETY: sets flags of libtorch and of this thread, which may be done at any time.
    checked(unsafe { nct_cuda_use(gpu as c_int) })
}

/// `tensor`, of the host's memory, on `device`, without waiting for what a GPU has to do first. It may be freed or
/// changed at once.
pub fn send(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    let Device::Cuda(index) = device else { return tensor.f_to_device(device) };
    let mut out = ptr::null_mut();
    // SAFETY: `tensor` lives through the call; `out` is a place for a pointer.
    checked(unsafe { nct_send(raw(tensor), index as c_int, &raw mut out) }).map_err(TchError::Torch)?;
    // SAFETY: without an error it points to a new tensor that nobody else has.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Weights that [`read`] has in memory at a time: 256 MiB in 32 bits.
const READ_AT_ONCE: i64 = 1 << 26;

/// `map` `[batch, C, height, width]` at positions `at` `[batch, n, 2]` of the same device: `[batch, n, C]` of their type,
/// interpolated between four pixels. (x, y) go from -1 to 1 between the centres of the outermost pixels.
///
/// Equal to `grid_sampler` up to rounding, and made for GPUs: gradients have the same bits every time, and those of the
/// map have channels innermost. There is no second derivative. With `fused`, by kernels of our own, which are for
/// positions in 32 bits and maps in bfloat16 or 32 bits with channels innermost and a multiple of 8; otherwise by products
/// of matrices, of which a value that is no number spoils all that is read from its channel.
pub fn read(map: &Tensor, at: &Tensor, fused: bool) -> Result<Tensor, TchError> {
    read_with(map, at, READ_AT_ONCE, fused)
}

fn read_with(map: &Tensor, at: &Tensor, room: i64, fused: bool) -> Result<Tensor, TchError> {
    let mut out = ptr::null_mut();
    // SAFETY: the tensors live through the call, and what the backward pass needs of them is counted by references;
    // `out` is a place for a pointer.
    checked(unsafe { nct_read(raw(map), raw(at), room, fused, &raw mut out) }).map_err(TchError::Torch)?;
    // SAFETY: without an error it points to a new tensor that nobody else has.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Compiles the kernels of [`norm_relu`], [`read`] and [`images`] for this GPU, which takes a second. They are compiled when they are first asked
/// for; here, what is missing for it is told before anything depends on it.
pub fn compile_kernels(gpu: usize) -> Result<(), String> {
    // SAFETY: takes a number; the device is one that libtorch's CUDA half, which is open, is asked about.
    checked(unsafe { nct_kernels(gpu as c_int) })
}

/// `weight`, in 32 bits, rounded to bfloat16. If it has a gradient already, the backward pass adds to that by itself, the same
/// numbers in one pass through them where autograd makes two. Autograd is then not told of them, so that this is not for
/// weights of which a [`Reducer`] waits to hear. There is no second derivative.
pub fn narrowed(weight: &Tensor) -> Result<Tensor, TchError> {
    let mut out = ptr::null_mut();
    // SAFETY: `weight` lives through the call, and its gradient, which the backward pass needs, is counted by references;
    // `out` is a place for a pointer.
    checked(unsafe { nct_narrow(raw(weight), &raw mut out) }).map_err(TchError::Torch)?;
    // SAFETY: without an error it points to a new tensor that nobody else has.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Images of a batch out of `bytes` `[images, channels, height * width]` of a GPU, by a kernel of our own:
/// `[n, channels, height, width]` in 32 bits, `values` `[channels * 256]` of what is seen. What happens to each is in
/// `moves` (`load/moves.rs`), whose first number must be one of the images.
pub fn images(
    bytes: &Tensor,
    values: &Tensor,
    moves: &[[i32; 10]],
    [height, width]: [i64; 2],
) -> Result<Tensor, TchError> {
    assert!(moves.iter().all(|place| (0..bytes.size()[0]).contains(&place[0].into())), "no such image");
    let flat = Tensor::f_from_slice(moves.as_flattened())?.f_view([-1, 10])?;
    let moves = send(&flat, bytes.device())?;
    let mut out = ptr::null_mut();
    // SAFETY: the tensors live through the call, are checked there, and what they hold is on the device's stream before the
    // kernel; rows are those of images; `out` is a place for a pointer.
    let code = unsafe { nct_images(raw(bytes), raw(values), raw(&moves), height, width, &raw mut out) };
    checked(code).map_err(TchError::Torch)?;
    // SAFETY: without an error it points to a new tensor that nobody else has.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// How [`norm_relu`] normalises.
#[derive(Debug, Clone, Copy)]
pub struct NormRelu<'a> {
    /// `[C, 1, 3, 3]` in 32 bits, rounded to bfloat16: convolve with it first, with a padding of 1. What is given is then
    /// the images `[batch, 1, height, width]`, of which there is no gradient.
    pub kernel: Option<&'a Tensor>,
    /// `[C]`: what was left out of the map, since normalisation takes it away again; the running mean is that with it.
    pub lacking: Option<&'a Tensor>,
    /// By which the running statistics move.
    pub momentum: f64,
    /// Added to variances.
    pub eps: f64,
    /// Take the maxima of 2 x 2 pixels, with a stride of 2.
    pub pooled: bool,
    /// The backward pass may add gradients of weight and bias to those that are there by itself, where no processes share
    /// the batch; see [`narrowed`].
    pub adds: bool,
}

/// Batch normalisation (Ioffe and Szegedy 2015) of `x` `[batch, C, height, width]` by statistics of the batch, rectified,
/// and pooled if asked for: up to rounding what `batch_norm`, `relu` and `max_pool2d` make of it, with fewer passes
/// through the map and less memory. `weight` and `bias` are `[C]` in 32 bits; so are the running mean and variance, which
/// move, and the number of batches, an int64 `[]`, grows. With `group`, every process has a share of the batch, perhaps an
/// empty one; this and the backward pass are collective then, and gradients of the weights are those of the share.
///
/// None where there are no kernels for it: they are for bfloat16 on a GPU, with channels innermost and a multiple of 8; with
/// a convolution, for maps that are not pooled.
/// Gradients have the same bits every time. There is no second derivative.
pub fn norm_relu(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    [mean, variance, batches]: [&Tensor; 3],
    how: NormRelu<'_>,
    group: Option<&Group>,
) -> Result<Option<Tensor>, TchError> {
    let mut out = ptr::null_mut();
    let NormRelu { kernel, lacking, momentum, eps, pooled, adds } = how;
    let group = group.map_or(ptr::null(), |group| group.raw.cast_const());
    // SAFETY: the tensors and the group live through the call, and what the backward pass needs of them is counted by
    // references; `out` is a place for a pointer.
    let code = unsafe {
        nct_norm_relu(
            raw(x),
            kernel.map_or(ptr::null(), raw),
            raw(weight),
            raw(bias),
            lacking.map_or(ptr::null(), raw),
            raw(mean),
            raw(variance),
            raw(batches),
            momentum,
            eps,
            pooled,
            adds,
            group,
            &raw mut out,
        )
    };
    checked(code).map_err(TchError::Torch)?;
    // SAFETY: without an error it is null, or points to a new tensor that nobody else has.
    Ok((!out.is_null()).then(|| unsafe { Tensor::from_ptr(out.cast()) }))
}

/// What a function gives if another process has ended.
const LOST: c_int = -2;

/// The result of a call that gave `code`.
fn checked(code: c_int) -> Result<(), String> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the text ends with 0, belongs to this thread, and is copied before the next call could change it.
    let said = unsafe { CStr::from_ptr(nct_error()) }.to_string_lossy();
    Err(said.lines().next().unwrap_or_default().to_owned())
}

fn lost(code: c_int) -> Result<(), GroupError> {
    checked(code)
        .map_err(|said| if is_own(&said) { GroupError::Refused(said) } else { GroupError::Lost(said) })
}

/// Whether what a collective said is about the device of this process, and not about another process.
pub fn is_own(said: &str) -> bool {
    let words =
        ["out of memory", "not enough memory", "can't allocate memory", "CUDA error", "unhandled cuda error"];
    words.iter().any(|words| said.contains(words))
}

/// The C++ tensor behind `tensor`.
fn raw(tensor: &Tensor) -> *const c_void {
    tensor.as_ptr().cast()
}

impl Group {
    /// Meets the other processes; blocks until all are there.
    pub fn join(at: &Meeting) -> Result<Self, GroupError> {
        let refuse = |what: String| GroupError::Meeting { place: format!("{}:{}", at.host, at.port), what };
        let text = |s: &str| CString::new(s).map_err(|e| refuse(e.to_string()));
        let (host, interface) = (text(&at.host)?, text(at.interface.as_deref().unwrap_or_default())?);
        let millis = |time: Duration| time.as_millis() as i64;
        let mut group = ptr::null_mut();
        // SAFETY: the texts end with 0 and live through the call, and `group` is a place for a pointer.
        let code = unsafe {
            nct_group_new(
                host.as_ptr(),
                at.port,
                interface.as_ptr(),
                at.rank as c_int,
                at.world as c_int,
                millis(JOIN),
                millis(WAIT),
                &raw mut group,
            )
        };
        checked(code).map_err(refuse)?;
        Ok(Self { raw: group, rank: at.rank, world: at.world })
    }

    /// From now on its GPUs, of which each process has its own, exchange their tensors by themselves; `device` is this
    /// process's. The host does not wait for such an exchange, and what comes after it on the device does. Blocks until
    /// all processes are here; to be called once at most.
    pub fn connect(&self, device: Device) -> Result<(), GroupError> {
        let Device::Cuda(index) = device else { return Ok(()) };
        // SAFETY: the group lives as long as `self`.
        let code = unsafe { nct_group_cuda(self.raw, index as c_int) };
        checked(code).map_err(|what| match code {
            LOST => GroupError::Lost(what),
            _ => GroupError::Gpus { gpu: index, what },
        })
    }

    /// This process, from 0.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Number of processes.
    pub fn world(&self) -> u32 {
        self.world
    }

    /// Whether this is the process that speaks and writes for all.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// Replaces `tensor`, which has the same shape and type everywhere and is contiguous, by the sum over all processes.
    pub fn sum(&self, tensor: &Tensor) -> Result<(), GroupError> {
        // SAFETY: the group lives as long as `self`, the tensor through the call, which waits for the exchange; or, on a
        // GPU, has its memory kept for it.
        lost(unsafe { nct_group_sum(self.raw, raw(tensor)) })
    }

    /// Replaces `tensors`, which are of one type and have the same shapes and strides everywhere, without gaps, by their
    /// averages over all processes, in one exchange.
    pub fn average(&self, tensors: &[Tensor]) -> Result<(), GroupError> {
        let all = list(tensors);
        // SAFETY: as in `sum`; `all` has as many tensors as is said.
        lost(unsafe { nct_group_average(self.raw, all.as_ptr(), all.len()) })
    }

    /// Replaces `tensor`, which has the same shape and type everywhere, by that of rank 0.
    pub fn broadcast(&self, tensor: &Tensor) -> Result<(), GroupError> {
        // SAFETY: as in `sum`.
        lost(unsafe { nct_group_broadcast(self.raw, raw(tensor)) })
    }

    /// The tensors of all processes, which have one shape and type and are contiguous, `[world, ...]`.
    pub fn gather(&self, tensor: &Tensor) -> Result<Tensor, GroupError> {
        let mut out = ptr::null_mut();
        // SAFETY: as in `sum`; `out` is a place for a pointer.
        lost(unsafe { nct_group_gather(self.raw, raw(tensor), &raw mut out) })?;
        // SAFETY: without an error it points to a new tensor that nobody else has.
        Ok(unsafe { Tensor::from_ptr(out.cast()) })
    }

    /// Batch normalisation of `x` `[batch, C, ...]`, of which every process has a share, perhaps an empty one, over the
    /// whole batch; `mean` and `variance` `[C]` move by `momentum` and stay equal everywhere. The backward pass is
    /// collective too; gradients of `weight` and `bias` are those of the share.
    #[expect(clippy::too_many_arguments, reason = "torch's own batch_norm has them all")]
    pub fn batch_norm(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        mean: &Tensor,
        variance: &Tensor,
        momentum: f64,
        eps: f64,
    ) -> Result<Tensor, GroupError> {
        let mut out = ptr::null_mut();
        // SAFETY: as in `gather`. What the backward pass needs of the group is counted by references of its own.
        lost(unsafe {
            nct_group_norm(
                self.raw,
                raw(x),
                raw(weight),
                raw(bias),
                raw(mean),
                raw(variance),
                momentum,
                eps,
                &raw mut out,
            )
        })?;
        // SAFETY: as in `gather`.
        Ok(unsafe { Tensor::from_ptr(out.cast()) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by `nct_group_new`, given back once; reducers hold an `Arc` of this, and graphs count references.
        unsafe { nct_group_free(self.raw) }
    }
}

/// PyTorch's reducer: gradients are exchanged in buckets while the backward pass goes on, and are averages then.
///
/// An update's last backward pass exchanges the gradients that have added up over all its batches.
pub struct Reducer {
    raw: *mut c_void,
    /// Outlives the reducer.
    group: Arc<Group>,
}

impl fmt::Debug for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reducer({:?})", self.group)
    }
}

impl Reducer {
    /// For parameters that require gradients, in the order of the layers; the same everywhere.
    pub fn new(group: Arc<Group>, params: &[Tensor]) -> Result<Self, GroupError> {
        let all: Vec<*const c_void> = params.iter().map(raw).collect();
        let mut out = ptr::null_mut();
        // SAFETY: `all` has as many tensors as is said, which live through the call; the reducer keeps references.
        lost(unsafe { nct_reducer_new(group.raw, all.as_ptr(), all.len(), &raw mut out) })?;
        Ok(Self { raw: out, group })
    }

    /// Before the backward pass of the update's last batch. Parameters that only earlier passes of the update used count as
    /// used.
    pub fn prepare(&mut self, loss: &Tensor) -> Result<(), GroupError> {
        // SAFETY: the reducer lives as long as `self`, the tensor through the call; no backward pass is under way, as
        // those of this crate end before they return.
        lost(unsafe { nct_reducer_prepare(self.raw, raw(loss)) })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: made by `nct_reducer_new`, given back once, before its group.
        unsafe { nct_reducer_free(self.raw) }
    }
}

#[cfg(test)]
mod tests;
