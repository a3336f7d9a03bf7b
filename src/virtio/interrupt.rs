//! Interrupts: how a device calls its driver.

/// Raises a device's interrupts. Called by the thread that owns the device; never blocks.
pub trait Interrupt: Send + Sync {
    /// Tells the driver that the device has used buffers of the queue.
    fn signal_used(&self, queue: u16);

    /// Tells the driver that the config space or the device status changed.
    fn signal_config(&self);

    /// Takes back what the driver was told and has not acknowledged, because the device was reset.
    fn reset(&self) {}
}
