//! Breakages: ways to break a destination that pass by themselves or that an operator can mend, and what each does to
//! what is delivered under it.

use std::time::Duration;

use hydrant_core::FaultCode;

/// One way to break a destination that passes by itself or that an operator can mend.
#[derive(Clone, Debug)]
pub struct Breakage {
    /// What it is called; the world knows it by this.
    pub name: &'static str,
    /// The code under which the sink must report it.
    pub code: FaultCode,
    /// How long the destination asks to wait, if it does.
    pub retry_after: Option<Duration>,
    /// What it does to what is delivered.
    pub effect: Effect,
}

/// What a breakage does to the object or the pieces that are delivered under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing is stored.
    Nothing,
    /// All is stored, and the sink does not hear of it.
    StoredUnheard,
    /// Some pieces are stored and others are not, and the sink hears which. Only piece sinks know it.
    StoredInPart,
}

impl Breakage {
    /// A breakage that stores nothing.
    pub const fn new(name: &'static str, code: FaultCode) -> Self {
        Self { name, code, retry_after: None, effect: Effect::Nothing }
    }

    /// A breakage after all was stored.
    pub const fn unheard(name: &'static str, code: FaultCode) -> Self {
        Self { name, code, retry_after: None, effect: Effect::StoredUnheard }
    }

    /// A breakage of some pieces and not of others; the code is that of the pieces it strikes.
    pub const fn in_part(name: &'static str, code: FaultCode) -> Self {
        Self { name, code, retry_after: None, effect: Effect::StoredInPart }
    }

    /// The breakage with a wish when to come back.
    #[must_use]
    pub const fn asking_for(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}
