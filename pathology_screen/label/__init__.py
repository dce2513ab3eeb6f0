"""The app for MONAI Label: screening, worklist and training from a viewer, in an environment of its
own."""
