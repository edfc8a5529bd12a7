"""What a frozen model wears: parameter-efficient methods, their composition and their registry. The methods arrive one folder each."""
