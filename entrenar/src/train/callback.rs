//! What a training loop tells its callbacks, and what they may answer.

mod gpu;

pub use self::gpu::GpuMonitorCallback;

/// What a callback wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallbackAction {
    /// Go on.
    #[default]
    Continue,
    /// End the training after this.
    Stop,
    /// Go to the next epoch. Before the first epoch it means to go on.
    SkipEpoch,
}

/// Where the training stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallbackContext {
    /// Epoch, from 0.
    pub epoch: usize,
    /// How many epochs there will be.
    pub max_epochs: usize,
    /// Step inside the epoch, from 0.
    pub step: usize,
    /// How many steps an epoch has.
    pub steps_per_epoch: usize,
    /// Steps taken since training began.
    pub global_step: usize,
    /// Loss of the last step taken; 0 before the first.
    pub loss: f32,
    /// Learning rate.
    pub lr: f32,
    /// Smallest loss so far.
    pub best_loss: Option<f32>,
    /// Seconds since training began.
    pub elapsed_secs: f64,
}

/// Looks on at a training, and may end it. Every method has a default that lets it go on.
pub trait TrainerCallback: Send {
    /// Before the first epoch.
    fn on_train_begin(&mut self, context: &CallbackContext) -> CallbackAction {
        let _ = context;
        CallbackAction::Continue
    }
    /// After the last epoch, a stop, or a step that failed.
    fn on_train_end(&mut self, context: &CallbackContext) {
        let _ = context;
    }
    /// Before the first step of an epoch.
    fn on_epoch_begin(&mut self, context: &CallbackContext) -> CallbackAction {
        let _ = context;
        CallbackAction::Continue
    }
    /// After the last step of an epoch.
    fn on_epoch_end(&mut self, context: &CallbackContext) -> CallbackAction {
        let _ = context;
        CallbackAction::Continue
    }
    /// Before a step. A callback that blocks here pauses the training.
    fn on_step_begin(&mut self, context: &CallbackContext) -> CallbackAction {
        let _ = context;
        CallbackAction::Continue
    }
    /// After a step.
    fn on_step_end(&mut self, context: &CallbackContext) -> CallbackAction {
        let _ = context;
        CallbackAction::Continue
    }
    /// Says who stopped a training.
    fn name(&self) -> &'static str;
}
