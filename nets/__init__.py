"""The nets of TF-Slim as Keras 3 functional models: one file a family, looked up in `nets_factory`."""
