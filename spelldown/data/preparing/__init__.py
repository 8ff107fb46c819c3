"""Any corpus in: from what people keep speech in to manifests of cuts that a recipe trains on."""
