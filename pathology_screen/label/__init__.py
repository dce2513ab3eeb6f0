"""The app for MONAI Label: screening, worklist and training from a viewer."""
