"""From images and a method to a trained model."""
