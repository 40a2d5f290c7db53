"""Muon for convolutional networks: orthogonalises the update of every kernel as a matrix from inputs to outputs."""

import re
from typing import Any

import keras


@keras.saving.register_keras_serializable("pdeinfer")
class ConvMuon(keras.optimizers.Muon):  # type: ignore[misc]  # Keras is untyped
    """Keras's Muon, extended from matrices to the kernels of convolutions.

    A kernel (height, width, in, out) is updated like the matrix (height * width * in, out). Adam updates the kernels of
    depthwise convolutions, which are not matrices, the layers that `exclude_layers` names, biases and normalisations.
    Weight decay applies only to kernels, not to gammas, betas and biases.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        if len(variable.shape) == 4:
            return variable.shape[-1] == 1 or any(re.search(name, variable.path) for name in self.exclude_layers)
        return super()._should_use_adamw(variable)  # type: ignore[no-any-return]

    def _use_weight_decay(self, variable: Any) -> bool:
        return len(variable.shape) > 1

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, gradient + m * (self.momentum - 1))
        update = gradient + self.momentum * m if self.nesterov else m
        matrix = keras.ops.reshape(update, (-1, variable.shape[-1]))
        matrix = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, keras.ops.reshape(matrix, variable.shape))
