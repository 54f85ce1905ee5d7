"""What methods are called in tables and figures, in their order there."""

NAMES = {
    "weights_of_evidence": "weights of evidence",
    "weights_of_evidence_baseline": "weights of evidence, baseline set",
    "weights_of_evidence_updated": "weights of evidence, updated set",
    "logistic_regression": "logistic regression",
    "random_forest": "random forest",
    "gradient_boosting": "gradient boosting",
    "pu_bagging": "positive-unlabeled bagging",
    "logistic_regression_window": "logistic regression, window statistics",
    "random_forest_window": "random forest, window statistics",
    "gradient_boosting_window": "gradient boosting, window statistics",
    "resnet18": "ResNet-18",
    "vit_scratch": "ViT from scratch",
    "vit_random": "ViT, random and frozen",
    "mae": "MAE, fine-tuned",
    "mae_features_logistic": "MAE features, logistic regression",
    "mae_features_boosting": "MAE features, gradient boosting",
    "distance_to_deposit": "distance to a known deposit",
    "shuffled_labels": "gradient boosting, shuffled labels",
}
CONTROLS = ("distance_to_deposit", "shuffled_labels")
